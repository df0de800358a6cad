"""The API of Pl@ntNet, version 2, over the same identifier as /v1; its words are Pl@ntNet's own."""
