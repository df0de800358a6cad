"""The core of voucher: what a plant, a sheet and an identification are, and how one leads to the other."""
