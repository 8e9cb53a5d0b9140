"""Labels from outside: chosen requests go out to people who label, and labelled rows come in."""
