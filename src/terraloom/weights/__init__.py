"""Checkpoints: a folder of `config.json`, `model.safetensors` (bfloat16) and `card.md`.

`config.json` names the kind of model and its shape; weights are safetensors, so loading runs no code. A pipeline of
several parts is a folder in diffusers' layout instead: `model_index.json` and one folder for each part. Nothing here
imports torch before a model is built or saved.
"""

from __future__ import annotations

from terraloom.weights.checkpoint import (
    CARD,
    COARSE,
    COARSE_GSD,
    COARSE_LEVEL,
    CONFIG,
    SHIPPED,
    WEIGHTS,
    Checkpoint,
)
from terraloom.weights.folders import (
    FRAMES,
    INDEX,
    LOADER,
    TEXT,
    available,
    find_frames,
    find_pipeline,
    is_pipeline,
    load_frames,
    load_unet,
    loader,
    save_frames,
    save_pipeline,
)
from terraloom.weights.single import KINDS, configuration, find, load_model, save_model

__all__ = [
    "CARD",
    "COARSE",
    "COARSE_GSD",
    "COARSE_LEVEL",
    "CONFIG",
    "FRAMES",
    "INDEX",
    "KINDS",
    "LOADER",
    "SHIPPED",
    "TEXT",
    "WEIGHTS",
    "Checkpoint",
    "available",
    "configuration",
    "find",
    "find_frames",
    "find_pipeline",
    "is_pipeline",
    "load_frames",
    "load_model",
    "load_unet",
    "loader",
    "save_frames",
    "save_model",
    "save_pipeline",
]
