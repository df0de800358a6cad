"""What goes over the wire, field by field; the words are those of STYLE and Darwin Core."""
