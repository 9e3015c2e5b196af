"""Models of point clouds, graphs and tables, written from their papers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.zoo.row import Made, Row

GROUP = "points, graphs, tables"


def gather(values: Tensor, places: Tensor) -> Tensor:
    """Takes ``values`` (batch, points, channels) at ``places`` (batch, ...); returns (batch, ..., channels)."""
    batch, _, channels = values.shape
    flat = places.reshape(batch, -1, 1).expand(-1, -1, channels)
    return values.gather(1, flat).view(*places.shape, channels)


class EdgeConvolution(nn.Module):
    """DGCNN (Wang et al., 2019): combines each point with its nearest points in the space of features."""

    def __init__(self, inner: int, outer: int, near: int = 8) -> None:
        super().__init__()
        self.near = near
        self.layers = nn.Sequential(nn.Linear(2 * inner, outer), nn.LayerNorm(outer), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        distances = torch.cdist(x, x)
        nearest = distances.topk(self.near, dim=-1, largest=False).indices
        around = gather(x, nearest)
        own = x.unsqueeze(2).expand_as(around)
        edges: Tensor = self.layers(torch.cat([own, around - own], -1))
        return edges.amax(2)


class DynamicGraph(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.edges = nn.ModuleList([EdgeConvolution(3, 32), EdgeConvolution(32, 32), EdgeConvolution(32, 64)])
        self.whole = nn.Sequential(nn.Linear(128, 128), nn.LayerNorm(128), nn.LeakyReLU(0.2))
        self.out = nn.Linear(256, classes)

    def forward(self, points: Tensor) -> Tensor:
        found, x = [], points
        for edge in self.edges:
            x = edge(x)
            found.append(x)
        x = self.whole(torch.cat(found, -1))
        result: Tensor = self.out(torch.cat([x.amax(1), x.mean(1)], -1))
        return result


class SetAbstraction(nn.Module):
    """PointNet++ (Qi et al., 2017): samples the farthest points, and pools what is in a ball around each."""

    def __init__(self, count: int, radius: float, near: int, inner: int, outer: int) -> None:
        super().__init__()
        self.count, self.radius, self.near = count, radius, near
        self.layers = nn.Sequential(nn.Linear(inner + 3, outer), nn.ReLU(), nn.Linear(outer, outer), nn.ReLU())

    def forward(self, places: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        centres = gather(places, self._farthest(places))
        distances = torch.cdist(centres, places)
        nearest, order = distances.topk(self.near, dim=-1, largest=False)
        order = torch.where(nearest > self.radius, order[..., :1], order)
        around = torch.cat([gather(places, order) - centres.unsqueeze(2), gather(features, order)], -1)
        return centres, self.layers(around).amax(2)

    def _farthest(self, places: Tensor) -> Tensor:
        batch = places.shape[0]
        chosen = [torch.zeros(batch, dtype=torch.long)]
        least = torch.full(places.shape[:2], 1e10)
        for _ in range(self.count - 1):
            last = gather(places, chosen[-1].unsqueeze(1))
            least = torch.minimum(least, (places - last).square().sum(-1))
            chosen.append(least.argmax(-1))
        return torch.stack(chosen, 1)


class PointSets(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.first, self.second = SetAbstraction(16, 0.6, 8, 3, 32), SetAbstraction(8, 1.2, 8, 32, 64)
        self.out = nn.Linear(64, classes)

    def forward(self, points: Tensor) -> Tensor:
        places, features = self.first(points, points)
        _, features = self.second(places, features)
        result: Tensor = self.out(features.amax(1))
        return result


class GraphAttention(nn.Module):
    """A graph attention layer (Velickovic et al., 2018): a softmax over the edges that end in a node."""

    def __init__(self, inner: int, outer: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.outer = heads, outer
        self.project = nn.Linear(inner, heads * outer, bias=False)
        self.source, self.target = nn.Parameter(torch.zeros(heads, outer)), nn.Parameter(torch.zeros(heads, outer))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        count = x.shape[0]
        x = self.project(x).view(count, self.heads, self.outer)
        begin, end = edges[0], edges[1]
        scores = (x * self.source).sum(-1)[begin] + (x * self.target).sum(-1)[end]
        scores = F.leaky_relu(scores, 0.2).exp()
        total = torch.zeros(count, self.heads).index_add(0, end, scores)
        messages = x[begin] * (scores / total[end].clamp(min=1e-9)).unsqueeze(-1)
        gathered = torch.zeros_like(x).index_add(0, end, messages)
        return gathered.flatten(1)


class GraphNet(nn.Module):
    """Attention, then a mean over neighbours (Kipf and Welling, 2017) by scatter, then a class for each node."""

    def __init__(self, inner: int = 16, classes: int = 7) -> None:
        super().__init__()
        self.first, self.second = GraphAttention(inner, 16), nn.Linear(32, 32)
        self.out = nn.Linear(64, classes)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        x = F.elu(self.first(nodes, edges))
        begin, end = edges[0], edges[1]
        degree = torch.zeros(x.shape[0]).scatter_add(0, end, torch.ones_like(end, dtype=x.dtype))
        sums = torch.zeros_like(x).index_add(0, end, self.second(x)[begin])
        around = sums / degree.clamp(min=1).unsqueeze(-1)
        result: Tensor = self.out(torch.cat([x, around.relu()], -1))
        return result


def _graph() -> Made:
    generator = torch.Generator().manual_seed(4)
    edges = torch.randint(0, 20, (2, 80), generator=generator)
    edges = torch.cat([edges, torch.arange(20).expand(2, 20)], 1)
    return GraphNet(), (torch.randn(20, 16), edges)


class Table(nn.Module):
    """FT-Transformer (Gorishniy et al., 2021): a transformer over a table's columns as tokens."""

    def __init__(self, numbers: int = 6, kinds: tuple[int, ...] = (4, 7, 3), width: int = 32) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(numbers, width)), nn.Parameter(torch.zeros(numbers, width))
        self.register_buffer("starts", torch.tensor([0, *kinds[:-1]]).cumsum(0))
        self.kinds = nn.Embedding(sum(kinds), width)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        tokens = numbers.unsqueeze(-1) * self.weight + self.bias
        starts: Tensor = self.starts
        named = self.kinds(kinds + starts)
        rows = torch.cat([self.first.expand(numbers.shape[0], -1, -1), tokens, named], 1)
        result: Tensor = self.out(self.encoder(rows)[:, 0])
        return result


def _table() -> Made:
    generator = torch.Generator().manual_seed(6)
    kinds = torch.stack([torch.randint(0, count, (8,), generator=generator) for count in (3, 3, 3)], 1)
    return Table(), (torch.randn(8, 6), kinds)


def _row(name: str, make: Callable[[], Made], dynamic: tuple[str, ...], precision: str | None = None) -> Row:
    return Row(name, GROUP, make, None, dynamic, precision)


def _cloud(rows: int = 1, points: int = 64) -> Tensor:
    return torch.randn(rows, points, 3, generator=torch.Generator().manual_seed(8))


_CLOUDS = ("points.0=1:1:4", "points.1=32:64:128")

ROWS = [
    _row("dgcnn", lambda: (DynamicGraph(), (_cloud(),)), _CLOUDS),
    _row("pointnet++", lambda: (PointSets(), (_cloud(),)), _CLOUDS),
    _row("graph-attention", _graph, ("nodes.0=20:20:60", "edges.1=50:100:300")),
    _row("ft-transformer", _table, ("numbers.0=1:8:64", "kinds.0=1:8:64"), "fp16"),
]
