"""How a model is held, differentiated, stepped and saved. Only this package, sync/ and tp_group see torch.distributed."""
