"""The HTTP service and the web page. Reads what `indexer` wrote; never imports it."""
