"""Read a torch module of your own: it calls PyTorch's fused attention, and Regard reads it where it is."""

import torch
from torch import Tensor, nn

import regard


class Block(nn.Module):
    """One layer of causal self-attention over embedded tokens."""

    def __init__(self, vocab_size: int = 50, dim: int = 32, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.embedding = nn.Embedding(vocab_size, dim)
        self.projection = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        heads = self.projection(self.embedding(ids)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        context = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(context.transpose(1, 2).flatten(-2))


model = Block()
ids = torch.randint(50, (1, 12))
expected = model(ids)
with regard.watching(model, rows="all", statistics=("entropy",)) as watch:
    found = model(ids)
assert torch.equal(found, expected)  # a watch changes no bit

reading = watch.reading(0)
print(reading)
print("weights", reading.weights("decoder", layer=0).shape)  # head, row, key
print("entropy of each head, nats:", reading.statistic("entropy", "decoder", layer=0).mean(axis=1).round(2))
