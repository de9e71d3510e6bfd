"""Model families that tell speakers, one folder of files each."""
