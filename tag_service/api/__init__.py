"""ris.tags.v1: protos in, protos out."""
