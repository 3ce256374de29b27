"""Fixed weights and inputs, computed from their names and places: networks of one kind made anywhere agree in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TINY: dict[str, Any] = dict(
    block_out_channels=(32, 64, 64, 64),
    attention_head_dim=(4, 8, 8, 8),
    cross_attention_dim=64,
    use_linear_projection=True,
    upcast_attention=True,
)

# a pixel model: 64 pixels a side as 12 channels of 32 x 32, attention only where there are 8 x 8 positions
SMALL: dict[str, Any] = dict(
    sample_size=32,
    in_channels=12,
    out_channels=12,
    down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    block_out_channels=(96, 192, 288),
    layers_per_block=1,
    attention_head_dim=(2, 4, 6),
    cross_attention_dim=384,
    use_linear_projection=True,
    class_embed_type="projection",
    projection_class_embeddings_input_dim=384,
    missing="learned",
)


def fix_weights(net: nn.Module) -> nn.Module:
    """Sines of place and rank of the name, larger where metadata and time come in, so that both matter."""
    state = net.state_dict()
    for rank, key in enumerate(sorted(state)):
        old = state[key]
        n = torch.arange(old.numel(), dtype=torch.float64)
        strong = "time_emb_proj" in key or ("embedding." in key and "cond" not in key)
        new = (0.4 if strong else 0.05) * torch.sin(0.7 * n**2 + 1.3 * rank)
        if old.ndim == 1 and key.endswith(".weight"):
            new += 1
        if old.ndim == 0:
            new = torch.full((1,), 0.25)
        state[key] = new.float().reshape(old.shape)
    net.load_state_dict(state)
    return net.eval()


def wave(shape: tuple[int, ...], step: float, start: float = 0.0) -> Tensor:
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(step * n + start).float().reshape(shape)


LATENT = wave((2, 4, 16, 16), 0.3)
TEXT = wave((2, 7, 64), 0.2, 1)
TIMES = torch.tensor([10, 500])
METADATA = torch.tensor(
    [
        [925.8798, 345.2111, 411.4541, 0, 308.3333, 166.6667, 354.8387],
        [100, 200, 300, 400, 500, 600, 700],
    ]
)
COND_METADATA = (37 * torch.arange(42) % 1000).float().reshape(2, 7, 3)
FRAMES = 0.5 + 0.5 * wave((2, 3, 3, 128, 128), 0.11)
BANDS = 0.5 + 0.5 * wave((2, 10, 64, 64), 0.11)


def expect(x: Tensor, mean: float, size: float, values: tuple[float, ...]) -> None:
    """Mean, mean absolute value, first four and last two values, each to 1e-4."""
    flat = x.flatten()
    found = torch.stack([flat.mean(), flat.abs().mean(), *flat[:4], *flat[-2:]])
    assert (found - torch.tensor([mean, size, *values])).abs().max() < 1e-4
