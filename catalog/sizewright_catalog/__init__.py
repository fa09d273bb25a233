"""Instance types, offers and prices: an immutable catalog read from one file."""
