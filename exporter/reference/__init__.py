"""PyTorch's answers and speed for a checkpoint and a bundle: the only room that runs a model.

``exporter.reference.make.make_reference`` is the way in.  It is not imported here,
because importing it imports torch.
"""
