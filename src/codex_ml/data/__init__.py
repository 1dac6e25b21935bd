"""From raw sources to the packed token stream that step N sees."""
