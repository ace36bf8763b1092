"""Linux kernels: the bzImage, what is packed in it, and the zero page that both start with."""
