"""The last block of a vision transformer for the one token that is read, where a network is pooled by its class token.

Attention asks with one query then, of the keys and values of all tokens, and projection and MLP see one token in place
of all: about a sixth of the block's operations are left, and the result is the same (as in the class attention of CaiT,
Touvron et al. 2021, "Going deeper with Image Transformers", §3.2). Functions of timm's own modules, not a module that
wraps them, so that names and digests of weights stay.
"""

from typing import Any

from timm.layers import DropPath, GluMlp, LayerNorm, Mlp, RmsNorm, SwiGLU, get_act_layer
from timm.models.vision_transformer import Attention, Block, LayerScale, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

_BLOCK_PARTS = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}
_ATTENTION_PARTS = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"}
_TREATS_TOKENS_ALIKE: frozenset[Any] = frozenset(
    {Mlp, GluMlp, SwiGLU, nn.Linear, nn.LayerNorm, LayerNorm, RmsNorm, LayerScale, DropPath, nn.Dropout, nn.Identity}
    | {nn.GELU, nn.SiLU, nn.Sigmoid, nn.ReLU}
    | {get_act_layer(name) for name in ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu", "sigmoid")}
)
"""What gives for a token the same whatever stands beside it; dropout and drop path with the same distribution."""


def reads_class_token_alone(network: nn.Module) -> bool:
    """Whether `network` pools by the first token of its last block and reads no other.

    Subclasses are not taken for granted: a distilled DeiT, for one, reads two tokens.
    """
    if type(network) is not VisionTransformer:
        return False
    head: Any = network
    return bool(head.global_pool == "token" and head.attn_pool is None and type(head.norm) in _TREATS_TOKENS_ALIKE)


def class_token_output(block: nn.Module, tokens: Tensor) -> Tensor:
    """``(B, 1, D)``: the first token of ``block(tokens)``, of tokens ``(B, T, D)``.

    Equal to the block's own output up to rounding, gradients included. A block with anything in it that is not known
    to treat tokens alike (gates, rotary embeddings, other attentions, replaced layers) is run as it is.
    """
    if not _is_known(block):
        return block(tokens)[:, :1]
    parts: Any = block
    x = tokens[:, :1]
    x = x + parts.drop_path1(parts.ls1(_attended(parts.attn, parts.norm1(tokens))))
    return x + parts.drop_path2(parts.ls2(parts.mlp(parts.norm2(x))))


def _attended(attention: Any, tokens: Tensor) -> Tensor:
    """``(B, 1, D)``: what `attention` gives for the first of the tokens ``(B, T, D)``."""
    heads = (attention.num_heads, attention.head_dim)
    width = attention.num_heads * attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    biases = (None, None) if bias is None else (bias[:width], bias[width:])
    query = functional.linear(tokens[:, :1], weight[:width], biases[0]).unflatten(-1, heads).transpose(1, 2)
    both = functional.linear(tokens, weight[width:], biases[1]).unflatten(-1, (2, *heads))
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    dropout = attention.attn_drop.p if attention.training else 0.0
    seen = functional.scaled_dot_product_attention(
        attention.q_norm(query), attention.k_norm(key), value, dropout_p=dropout
    )
    return attention.proj_drop(attention.proj(attention.norm(seen.transpose(1, 2).flatten(2))))


def _is_known(block: nn.Module) -> bool:
    """Whether `block` is timm's plain pre-normalised block, of parts that are known, and of no others."""
    if type(block) is not Block or {name for name, _ in block.named_children()} != _BLOCK_PARTS:
        return False
    attention: Any = block.attn
    if type(attention) is not Attention or {name for name, _ in attention.named_children()} != _ATTENTION_PARTS:
        return False
    return all(type(part) in _TREATS_TOKENS_ALIKE for part in block.modules() if part not in (block, attention))
