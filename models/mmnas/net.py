"""The complete network of MMNas: words and regions -> encoder-decoder -> head, for every task, searched or fixed.

A batch is a dict of tensors:

- ``regions``, float16 or float32 (B, N, D): features of the regions;
- ``boxes``, float32 (B, N, 4): x1, y1, x2, y2 in pixels;
- ``counts``, int64 (B,): number of regions of each image; the rest of the N rows is padding;
- ``tokens``, int64 (B, T): word indices, 0 = padding;
- ``image_size``, float32 (B, 2): height and width in pixels; required only with box features;
- ``relations``, float32 (B, N, N, 4), optional: used instead of `box_relations`.

N and T may be those of the longest sample in the batch, unless `MultimodalNet.needs_full_padding` is true.
`fast.speed_up` turns a network into one that computes the same in less time.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.mmnas.architecture import Architecture
from models.mmnas.cost import ExpectedCost
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.published import rename_old_keys
from models.mmnas.recurrent import run_lstm
from models.mmnas.regions import BOX_FEATURES, RELATION_FEATURES, box_features, box_relations, padding_mask
from search.choice import Choice
from search.derive import argmax

Batch = dict[str, torch.Tensor]


class MultimodalNet(nn.Module):
    """Word embedding and LSTM, projected regions, an encoder-decoder and a head (Yu et al., ACM MM 2020).

    Args:
        encoder_decoder: `EncoderDecoder`; its ``hsize`` is the width H.
        head: A module of `models.mmnas.heads`, called with words, regions and both masks.
        embedding: Initial word vectors, float (V, E), which are copied and trained; or (V, E) for random ones.
        region_size: Size D of a region's feature vector.
        box_feature: Width of embedded box features that are concatenated to the regions; 0, as published: none.
    """

    genotype_class = Architecture  # what `genotype` returns

    def __init__(
        self,
        encoder_decoder: EncoderDecoder,
        head: nn.Module,
        embedding: torch.Tensor | tuple[int, int],
        region_size: int = 2048,
        box_feature: int = 0,
    ) -> None:
        super().__init__()
        width = encoder_decoder.hsize
        given = isinstance(embedding, torch.Tensor)
        self.embedding = nn.Embedding(*(embedding.shape if given else embedding))
        if given:
            with torch.no_grad():
                self.embedding.weight.copy_(embedding)
        self.lstm = nn.LSTM(self.embedding.embedding_dim, width, batch_first=True)
        self.box_linear = nn.Linear(BOX_FEATURES, box_feature) if box_feature else None
        self.region_linear = nn.Linear(region_size + box_feature, width)
        self.relation_linear = nn.Linear(RELATION_FEATURES, encoder_decoder.relation_size)
        # The original has this layer in every network. It is not trained if no operation reads relations.
        self.relation_linear.requires_grad_(encoder_decoder.can_use_relation)
        self.encoder_decoder = encoder_decoder
        self.head = head
        self.register_load_state_dict_pre_hook(rename_old_keys)

    @property
    def needs_full_padding(self) -> bool:
        """Whether results of some candidate depend on padding, so that batches must have the official padded length."""
        return self.encoder_decoder.depends_on_padding

    def forward(self, batch: Batch) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the head's output: answer logits (B, A), scores and offsets of regions, or matching scores (B,)."""
        return self.head(*self.features(batch))

    def pooling_weights(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pooling weights of words (B, T, G) and regions (B, N, G); see `PoolingHead.weights`."""
        return self.head.weights(*self.features(batch))

    def features(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return encoded words (B, T, H), decoded regions (B, N, H), and their masks, bool (B, T) and (B, N)."""
        x, x_mask = self.embed_words(batch["tokens"])
        y, y_mask, relation = self.embed_regions(batch)
        x, y = self.encoder_decoder(x, y, x_mask, y_mask, relation)
        return x, y, x_mask, y_mask

    def embed_words(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the LSTM states, float (B, T, H), of int64 (B, T) tokens, and their padding mask, bool (B, T).

        As in the original, the LSTM also reads the padding. It comes last, so it does not affect the other states.
        """
        return run_lstm(self.lstm, self.embedding(tokens)), tokens == 0

    def embed_regions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Project the regions of a batch.

        Returns:
            Projected regions, float (B, N, H); their padding mask, bool (B, N), which depends on ``counts`` only and
            not on the features; and the result of `embed_relations`, or None if no operation reads it.
        """
        boxes = None if self.box_linear is None else box_features(batch["boxes"], batch["image_size"])
        mask = padding_mask(batch["counts"], batch["regions"].shape[1])
        relation = self.embed_relations(batch) if self.encoder_decoder.uses_relation() else None
        return self.project_regions(batch["regions"], boxes), mask, relation

    def project_regions(self, regions: torch.Tensor, boxes: torch.Tensor | None) -> torch.Tensor:
        """Project features (..., D), together with box features (..., 5) if the network uses them, to (..., H)."""
        features = regions.to(self.region_linear.weight.dtype)
        if boxes is not None:
            boxes = self.box_linear(boxes.to(features.dtype)).to(features.dtype)
            features = torch.cat([features, boxes], dim=-1)
        return self.region_linear(features)

    def embed_relations(self, batch: Batch) -> torch.Tensor:
        """Return the embedded relations between all regions, float (B, N, N, relation_size)."""
        if "relations" in batch:
            return self.project_relations(batch["relations"])
        return self.project_relations(box_relations(batch["boxes"], batch["counts"]))

    def project_relations(self, relations: torch.Tensor) -> torch.Tensor:
        """Embed relations: (..., 4) -> (..., relation_size). Autocast is off, for the precision of the parameters."""
        with torch.autocast(relations.device.type, enabled=False):
            return F.relu(self.relation_linear(relations.to(self.relation_linear.weight.dtype)), inplace=True)

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: name -> parameter, in the order of the blocks; empty in a fixed network."""
        return {name: value for name, value in self.named_parameters() if name.endswith("alpha_logits")}

    def weights(self) -> list[nn.Parameter]:
        """Parameters that weight steps train: all except architecture parameters and those that no path uses."""
        relation = () if self.encoder_decoder.can_use_relation else self.relation_linear.parameters()
        unread = {id(p) for p in relation}
        return [p for name, p in self.named_parameters() if ".alpha_" not in name and id(p) not in unread]

    def uses_all_weights(self) -> bool:
        """Whether every forward pass uses all parameters of `weights`."""
        return not self.encoder_decoder.gated()

    def trainable_state(self) -> "MultimodalNet":
        """The part of the network that a resumed run restores: all of it."""
        return self

    def choices(self) -> list[Choice]:
        """The choices of the encoder-decoder, see `search.choice.SearchSpace`."""
        return self.encoder_decoder.choices()

    def discretise(self, scores: dict[str, torch.Tensor]) -> Architecture:
        """Derive the architecture from scores of the candidates, see `search.choice.SearchSpace`."""
        return self.encoder_decoder.discretise(scores)

    def expected_cost(self, kind: str) -> ExpectedCost:
        """See `search.choice.SearchSpace`."""
        return ExpectedCost(self.encoder_decoder, kind)

    def genotype(self) -> Architecture:
        """Derive the architecture of the most probable candidates; in a fixed network, its own architecture."""
        return argmax(self)

    def probabilities(self) -> dict[str, dict[str, dict[str, float]]]:
        """Probabilities of the candidates: title -> {row name: {operation: probability}}."""
        return self.encoder_decoder.probabilities()

    def count_parameters(self) -> dict[str, int]:
        """Number of parameters of each part of the network."""
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        architecture = sum(len(choice.candidates) for choice in self.choices())
        sizes["encoder_decoder"] -= 2 * architecture
        return {**sizes, "architecture": architecture}
