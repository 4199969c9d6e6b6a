"""The method, one paragraph per stage."""
