"""Writes the backbone as a model directory: weights in f16, configuration, and what pinball.json says beside the heads."""

import json

import torch
from safetensors.torch import save_file

from vocabulary import gate_pattern

FIELDS = [
    'vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads',
    'head_dim', 'max_position_embeddings', 'rms_norm_eps', 'tie_word_embeddings', 'attention_bias', 'mlp_bias',
    'hidden_act', 'initializer_range', 'bos_token_id', 'eos_token_id', 'pad_token_id',
]


def replace(path, write):
    """Calls write with a temporary path and renames it, so that readers never see half a file."""
    temporary = path.with_name(path.name + '.tmp')
    write(temporary)
    temporary.replace(path)


def write_json(path, value):
    replace(path, lambda p: p.write_text(json.dumps(value, indent=2) + '\n'))


def write_backbone(folder, tokenizer, config, backbone):
    """backbone: LlamaModel's state. Writes config.json, pinball.json, model.safetensors."""
    tensors = {f'model.{name}': t.to(torch.float16).contiguous() for name, t in backbone.items()}
    replace(folder / 'model.safetensors', lambda p: (save_file(tensors, p, metadata={'format': 'pt'}), p.chmod(0o644)))
    write_json(folder / 'config.json', {
        'architectures': ['LlamaModel'], 'model_type': 'llama',
        **{name: getattr(config, name) for name in FIELDS},
        'rope_theta': 500000.0, 'rope_scaling': None, 'torch_dtype': 'float16',
    })
    write_json(folder / 'pinball.json', {'bos': 'template', 'gate_pattern': gate_pattern(tokenizer), 'lambda': 8})
