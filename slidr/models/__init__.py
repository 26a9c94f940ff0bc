"""What can be learnt: each module makes the layers of a bundle. Only `network` needs torch."""
