"""ChatGLM-6B, ChatGLM2, ChatGLM3 and GLM-4 in their published layout, as models to be trained.

The modules have the names of the published tensors (`query_key_value`, `dense_h_to_4h`), so that
adapters on them are those of the published code. They compute what `engine.models.decoder` does for
`engine.models.chatglm`, with gradients. Knows no adapters and no trainer; does not generate.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from engine.models.architecture import Positions
from tuning.models.chatglm_blocks import Block, FirstBlock, RMSNorm
from tuning.models.chatglm_config import ChatGLMConfig


class Transformer(nn.Module):
    """ChatGLM2, ChatGLM3 and GLM-4: all but the product with the output head."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.architecture = config.architecture
        self.make(config)

    def make(self, config: ChatGLMConfig) -> None:
        """Make the modules, by their published names."""
        width = config.hidden_size
        self.embedding = nn.Module()
        self.embedding.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            Block(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.encoder.final_layernorm = RMSNorm(width, config.layernorm_epsilon)
        self.output_layer = nn.Linear(width, config.vocab_size, bias=False)

    def parts(self) -> tuple[Any, Any, Any]:
        """The embedding, the blocks and the last norm."""
        return self.embedding.word_embeddings, self.encoder.layers, self.encoder.final_layernorm

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool = False,
        **segments: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (batch, tokens, width) after the last norm.

        With a mask of tokens (batch, tokens), or with none, positions and mask are the published
        code's: `position_ids` are not read, and a prefix in the cache has no positions. A mask of
        four dimensions is used as it is, with position_ids (batch, tokens), or (batch, 2, tokens)
        for the two channels of ChatGLM-6B.
        """
        embedding, blocks, final_norm = self.parts()
        hidden = embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None or attention_mask.ndim == 2:
            cached = 0 if past_key_values is None else past_key_values.get_seq_length()
            if attention_mask is None:
                attention_mask = hidden.new_ones(len(hidden), cached + hidden.shape[1])
            position_ids, attention_mask = _positions_and_mask(
                self.architecture.positions, input_ids, attention_mask.bool(), cached
            )
        assert position_ids is not None
        angles = self._angles(position_ids, hidden.dtype)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        for block in blocks:
            hidden = block(
                hidden,
                angles=angles,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **segments,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=final_norm(hidden), past_key_values=past_key_values
        )

    def _angles(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, 1, tokens, rotated / 2)."""
        batch, tokens = len(position_ids), position_ids.shape[-1]
        channels = position_ids.view(batch, -1, tokens).transpose(1, 2).flatten(0, 1)
        cos, sin = self.architecture.config.angles(channels)
        cos, sin = (x.view(batch, 1, tokens, -1).to(dtype) for x in (cos, sin))
        return cos, sin


class FirstTransformer(Transformer):
    """ChatGLM-6B: all but the output head."""

    def make(self, config: ChatGLMConfig) -> None:
        """See `Transformer`."""
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            FirstBlock(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)

    def parts(self) -> tuple[Any, Any, Any]:
        """See `Transformer`."""
        return self.word_embeddings, self.layers, self.final_layernorm


class ChatGLM2ForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """ChatGLM2, ChatGLM3 and GLM-4."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["Block", "FirstBlock"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"rotary_(pos_)?emb\.inv_freq"]
    _tied_weights_keys: ClassVar = {
        "transformer.output_layer.weight": "transformer.embedding.word_embeddings.weight"
    }

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.make(config)
        self.post_init()

    def make(self, config: ChatGLMConfig) -> None:
        """Make the modules, by their published names."""
        self.transformer = Transformer(config)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        embedding: nn.Module = self.get_submodule(self.config.architecture.layout.embedding)
        return embedding

    def get_output_embeddings(self) -> nn.Module:
        """The output head."""
        head: nn.Module = self.get_submodule(self.config.architecture.layout.head)
        return head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, tokens, vocabulary), and the mean loss of labels that are not -100."""
        kwargs.pop("return_dict", None)
        found = self.transformer(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache
        )
        logits = self.get_output_embeddings()(found.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=found.past_key_values
        )


class ChatGLMForCausalLM(ChatGLM2ForCausalLM):
    """ChatGLM-6B."""

    _tied_weights_keys: ClassVar = {"lm_head.weight": "transformer.word_embeddings.weight"}

    def make(self, config: ChatGLMConfig) -> None:
        """See `ChatGLM2ForCausalLM`."""
        self.transformer = FirstTransformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def _positions_and_mask(
    positions: Positions, input_ids: Tensor | None, real: Tensor, cached: int
) -> tuple[Tensor, Tensor]:
    """Positions of a padded batch, and what its tokens see (batch, 1, tokens, cached + tokens).

    real (batch, cached + tokens): what is not padding. Without `input_ids` every token counts as an
    ordinary one. Padding sees itself alone, since a row of a softmax must not be empty.
    """
    batch, tokens = len(real), real.shape[1] - cached
    found = []
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=real.device).tril()
    seen = torch.cat([seen.new_ones(tokens, cached), seen], dim=1).repeat(batch, 1, 1)
    for row in range(batch):
        places = real[row, cached:].nonzero()[:, 0]
        ids = places.tolist() if input_ids is None else input_ids[row, places].tolist()
        own = positions(ids, 0, len(ids)).to(real.device)
        found.append(own.new_zeros(tokens, own.shape[1]).index_copy(0, places, own))
        seen[row, :, cached + places[: positions.prefix(ids)]] = True
    seen &= real[:, None, :]
    seen.diagonal(cached, 1, 2).fill_(True)
    position_ids = torch.stack(found).transpose(1, 2)
    return position_ids if position_ids.shape[1] > 1 else position_ids[:, 0], seen[:, None]
