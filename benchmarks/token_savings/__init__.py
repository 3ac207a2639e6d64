"""What Code Mode saves, measured on real servers with tasks whose results are checked."""
