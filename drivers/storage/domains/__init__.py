"""Storage domains: finding, making, describing and watching them."""
