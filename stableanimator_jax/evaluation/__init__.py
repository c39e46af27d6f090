"""How good animated videos are: measures by a named protocol, and statistics that say how far to trust them."""
