"""What the loop asks and is not the loop: how far it is, who stops it, its checkpoints and its folders."""
