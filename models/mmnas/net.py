"""The whole network of MMNas: words and regions -> encoder-decoder -> head, for every task, searched or fixed.

A batch is a dict of tensors: ``regions`` float16 or float32 (B, N, D); ``boxes`` float32 (B, N, 4), x1, y1, x2, y2 in
pixels; ``counts`` int64 (B,), regions of each image, behind which the rows are padding; ``tokens`` int64 (B, T), 0 =
padding; ``image_size`` float32 (B, 2), height and width in pixels. ``relations`` float32 (B, N, N, 4), if there, takes
the place of what `box_relations` computes. N and T may be those of the batch's longest member wherever
`MultimodalNet.needs_full_padding` is false.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.mmnas.recurrent import run_lstm
from models.mmnas.relations import (
    BOX_FEATURES,
    RELATION_FEATURES,
    Relation,
    box_features,
    box_relations,
    given_relations,
)
from models.mmnas.rows import Rows, padding_of
from search.derive import argmax


class MultimodalNet(nn.Module):
    """Word embedding and LSTM, projected regions, an encoder-decoder and a head (specification section 3).

    Args:
        backbone: `EncoderDecoder`; its ``hsize`` is the width H.
        head: One of `heads`; called with words, regions and their `Rows`.
        embedding: Word vectors float (V, E), copied and trained; or (V, E) for random ones.
        region_size: D.
        box_feature: Width of box features that are concatenated to the regions; 0, as published: none.
        pack: Leave padding out of what is computed for each row, which changes no number; None: on a CPU, where
            arithmetic is what costs. Off where an operation depends on padding.
    """

    def __init__(self, backbone, head, embedding, region_size=2048, box_feature=0, pack=None):
        super().__init__()
        width = backbone.hsize
        given = isinstance(embedding, torch.Tensor)
        self.embedding = nn.Embedding(*(embedding.shape if given else embedding))
        if given:
            with torch.no_grad():
                self.embedding.weight.copy_(embedding)
        self.lstm = nn.LSTM(self.embedding.embedding_dim, width, batch_first=True)
        self.box_linear = nn.Linear(BOX_FEATURES, box_feature) if box_feature else None
        self.region_linear = nn.Linear(region_size + box_feature, width)
        self.relation_linear = nn.Linear(RELATION_FEATURES, backbone.relation_size)
        # The originals hold it in every network; where nothing reads it, it is not to be trained.
        self.relation_linear.requires_grad_(backbone.can_use_relation)
        self.backbone = backbone
        self.head = head
        self.pack = pack

    @property
    def needs_full_padding(self):
        """Whether a candidate's results depend on the padded length, so that batches need the official one."""
        return self.backbone.depends_on_padding

    def forward(self, batch):
        """What the head makes of a batch dict: logits (B, A), scores and boxes, or matching scores (B,)."""
        x, y, x_rows, y_rows = self.features(batch)
        return self.head(x, y, x_rows, y_rows)

    def pooling_weights(self, batch):
        """Weights that a pooling head gives words (B, T, G) and regions (B, N, G); see `PoolingHead.weights`."""
        return self.head.weights(*self.features(batch))

    def features(self, batch):
        """Encoded words and decoded regions, float (B, L, H) or packed (R, H), and the `Rows` of each."""
        x, x_rows = self.embed_words(batch["tokens"])
        y, y_rows = self.embed_regions(batch)
        relation = self.relation(batch, y_rows) if self.backbone.uses_relation() else None
        x, y = self.backbone(x, y, x_rows, y_rows, relation)
        return x, y, x_rows, y_rows

    def embed_words(self, tokens):
        """LSTM states of int64 (B, T) tokens, padding included as in the original, and their `Rows`."""
        rows = self._rows(tokens == 0)
        return rows.pack(run_lstm(self.lstm, self.embedding(tokens))), rows

    def embed_regions(self, batch):
        """Projected regions and their `Rows`; what lies beyond an image's ``counts`` is padding, whatever it holds."""
        regions = batch["regions"]
        rows = self._rows(padding_of(batch["counts"], regions.shape[1]), self.head.reads_padding)
        features = rows.pack(regions).to(self.region_linear.weight.dtype)
        if self.box_linear is not None:
            boxes = rows.pack(box_features(batch["boxes"], batch["image_size"])).to(features.dtype)
            features = torch.cat([features, self.box_linear(boxes).to(features.dtype)], dim=-1)
        return self.region_linear(features), rows

    def relation(self, batch, rows):
        """Embedded relations between the kept regions, a `Relation` relation_size wide."""
        pairs = rows.pairs()
        if "relations" in batch:
            values = given_relations(batch["relations"], pairs)
        else:
            values = box_relations(batch["boxes"], batch["counts"], pairs)
        with torch.autocast(values.device.type, enabled=False):
            values = values.to(self.relation_linear.weight.dtype)
            return Relation(F.relu(self.relation_linear(values), inplace=True), pairs)

    def _rows(self, padding, reads_padding=False):
        kind = padding.device.type
        pack = kind == "cpu" if self.pack is None else self.pack
        pack = pack and not reads_padding and not self.needs_full_padding
        return Rows(padding[:, None, None], pack)

    def arch_parameters(self):
        """Architecture parameters: name -> parameter, in the order of the blocks; empty in a fixed network."""
        return {name: value for name, value in self.named_parameters() if name.endswith("alpha_prob")}

    def weights(self):
        """Parameters that weight steps train: all but the architecture's and those that no path reads."""
        relation = () if self.backbone.can_use_relation else self.relation_linear.parameters()
        unread = {id(p) for p in relation}
        return [p for name, p in self.named_parameters() if ".alpha_" not in name and id(p) not in unread]

    def path_weights(self):
        """Those of `weights` that the next forward's output depends on: of several candidates the active one's."""
        active = self.backbone.active()
        needed = {id(p) for operation in active for p in operation.parameters()}
        if any(operation.needs_relation for operation in active):
            needed |= {id(p) for p in self.relation_linear.parameters()}
        optional = {id(p) for part in (self.backbone, self.relation_linear) for p in part.parameters()}
        return [p for p in self.weights() if id(p) not in optional or id(p) in needed]

    def uses_all_weights(self):
        """Whether every parameter of `weights` takes part in every forward."""
        return not self.backbone.gated()

    def trainable_state(self):
        """What resuming needs: everything."""
        return self

    def choices(self):
        """The choices of the encoder-decoder, see `search.choice.SearchSpace`."""
        return self.backbone.choices()

    def relax(self, relaxation):
        """See `search.choice.SearchSpace`."""
        self.backbone.relax(relaxation)

    def discretise(self, scores):
        """The `Architecture` for scores of the candidates, see `search.choice.SearchSpace`."""
        return self.backbone.discretise(scores)

    def genotype(self):
        """The strongest candidate of every block, or the fixed operations, as an `Architecture`."""
        return argmax(self)

    def probabilities(self):
        """Probabilities of the candidates: title -> {row name: {operation: probability}}."""
        return self.backbone.probabilities()

    def count_parameters(self):
        """Numbers of weights by part."""
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        architecture = sum(len(choice.candidates) for choice in self.choices())
        sizes["backbone"] -= 2 * architecture
        return {**sizes, "architecture": architecture}
