"""How a model is held, differentiated, stepped and saved; the home of torch.distributed."""
