"""What all layers are made of: their base, their registry, and what several families share."""
