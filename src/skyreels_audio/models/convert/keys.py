"""Names of weights in the original checkpoints → names in ours (which are diffusers' and transformers').

A key is taken apart as (block prefix, stem, suffix), e.g. ("blocks.3.", "self_attn.q", ".weight"); tables map stems.
Unknown names pass unchanged, so that the check against the manifest can name them.
"""

import re

_KEY = re.compile(r"(?P<block>(?:.*?\b(?:blocks|transformer)\.\d+\.)?)(?P<stem>.*?)(?P<suffix>\.weight|\.bias|)")

ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
IMAGE_ATTENTION = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}

WAN = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "modulation": "scale_shift_table",
    "norm3": "norm2",  # before cross-attention: the third norm to Wan, the second to diffusers
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in ATTENTION.items()},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in (ATTENTION | IMAGE_ATTENTION).items()},
}
"""Wan 2.1 and SkyReels-V2."""

MULTITALK = {
    **{f"audio_proj.{name}": f"audio_projector.{name}" for name in ("proj1", "proj1_vf", "proj2", "proj3", "norm")},
    "norm_x": "audio_norm",
    "audio_cross_attn.q_linear": "audio_attn.to_q",
    "audio_cross_attn.kv_linear": "audio_attn.to_k+to_v",  # keys above values
    "audio_cross_attn.proj": "audio_attn.to_out.0",
}
"""MultiTalk, InfiniteTalk and SkyReels-V3-A2V."""

FANTASYTALKING = {
    "proj_model.proj": "audio_projector.proj",
    "proj_model.norm": "audio_projector.norm",
    "cross_attn.processor.k_proj": "audio_attn.to_k",
    "cross_attn.processor.v_proj": "audio_attn.to_v",
}

UMT5 = {
    "token_embedding": "shared",
    "norm": "encoder.final_layer_norm",
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    **{f"attn.{name}": f"layer.0.SelfAttention.{name}" for name in "qkvo"},
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}

CLIP = {
    "visual.cls_embedding": "embeddings.class_embedding",
    "visual.pos_embedding": "embeddings.position_embedding.weight",
    "visual.patch_embedding": "embeddings.patch_embedding",
    "visual.pre_norm": "pre_layrnorm",
    "visual.post_norm": "post_layernorm",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.to_qkv": "self_attn.q_proj+k_proj+v_proj",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def rename(key: str, table: dict[str, str], block: tuple[str, str] = ("", "")) -> list[str]:
    """The new names of ``key``: several where a tensor holds several projections, stacked in this order.

    Args:
        key: a name of the original checkpoint.
        table: what becomes of stems.
        block: the beginning of the names inside blocks, theirs and ours.
    """
    theirs, ours = block
    match = _KEY.fullmatch(key)
    assert match is not None, key
    prefix, stem, suffix = match["block"], match["stem"], match["suffix"]
    if stem not in table:
        return [key]
    if theirs and prefix.startswith(theirs):
        prefix = ours + prefix[len(theirs) :]
    *path, last = table[stem].rsplit(".", 1)
    return [prefix + ".".join([*path, part]) + suffix for part in last.split("+")]
