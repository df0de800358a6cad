"""Image files as their containers lay them out: segments and chunks, never pixels."""
