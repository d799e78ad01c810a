"""The network: GLoRA layers, a weight-sharing supernet, its data, training, evaluation, export."""
