"""Networks, their pretrained weights, and the networks of other programs."""
