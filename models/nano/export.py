"""Writes the model directory in the checkpoint layout of QRM: backbone in f16, heads and gate in f32."""

import json

import torch
from safetensors.torch import save_file

from data import ATTRIBUTES, LEVELS
from gate import HIDDEN, LAYERS, TEMPERATURE
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


def write_model(folder, tokenizer, config, backbone, heads, gate, biases=None):
    """backbone: LlamaModel's state; heads [M, K, D] f32; gate: a Gate; biases [M, K] f32. Writes config.json, pinball.json, model.safetensors."""
    attributes, levels, width = heads.shape
    if (attributes, levels) != (len(ATTRIBUTES), len(LEVELS)):
        raise ValueError(f'heads: must be [{len(ATTRIBUTES)}, {len(LEVELS)}, D], got {list(heads.shape)}')
    tensors = {f'model.{name}': t.to(torch.float16).contiguous() for name, t in backbone.items()}
    tensors['regression_layer.weight'] = heads.reshape(-1, width).float().contiguous()
    tensors['regression_layer.bias'] = (torch.zeros(attributes * levels) if biases is None else biases.reshape(-1).float()).contiguous()
    tensors |= {f'gating.{name}': t.detach().clone().contiguous() for name, t in gate.state_dict().items()}
    replace(folder / 'model.safetensors', lambda p: (save_file(tensors, p, metadata={'format': 'pt'}), p.chmod(0o644)))
    write_json(folder / 'config.json', {
        'architectures': ['LlamaForRewardModelWithGating'], 'model_type': 'llama',
        **{name: getattr(config, name) for name in FIELDS},
        'rope_theta': 500000.0, 'rope_scaling': None, 'torch_dtype': 'float16',
        'num_objectives': attributes, 'num_quantiles': levels,
        'gating_temperature': TEMPERATURE, 'gating_hidden_dim': HIDDEN, 'gating_n_hidden': LAYERS,
    })
    write_json(folder / 'pinball.json', {
        'attributes': ATTRIBUTES, 'levels': LEVELS, 'bos': 'template', 'gate_pattern': gate_pattern(tokenizer),
        'mixture': 'sum', 'lambda': 8,
    })
