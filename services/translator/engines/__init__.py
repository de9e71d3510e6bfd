"""Model families that translate, one file each."""
