"""Both stages of the method, and what they need."""
