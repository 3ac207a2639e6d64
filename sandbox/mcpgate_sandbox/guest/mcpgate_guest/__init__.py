"""What runs inside the sandbox beside the model's code. It is a convenience for that code, not a
boundary: the host treats everything that comes out of a guest as hostile."""
