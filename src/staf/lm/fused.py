"""A decoder layer of the Llama family as one node of autograd, written out forward and backward.

    rows x (N, d) --- norm --- [q|k|v] --- rotary --- attention --- o --- + --- norm --- [gate|up] --- silu * --- down --- + -->
                 \\-----------------------------------------------------/ \\--------------------------------------------------/

The weights are frozen, so a backward pass needs only the gradient of x, and those of the low-rank factors residual it. Written
out, the matrices that share an input are one product, nothing is kept twice, padding is computed in attention alone, and a
layer costs some 100 operations instead of 400: on a processor the rest of a step is otherwise mostly overhead. Used while
gradients are needed and every matrix has factors; in all other cases the model's own layers run (`supports`,
`FusedDecoder.ready`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recomputed

from staf.lm import blocks
from staf.lm.groups import Group
from staf.lm.lora import draw_dropout_mask, lora_linear, lora_linear_backward
from staf.lm.packed import Heads, Layout, lay_out, to_heads, to_heads_back
from staf.lm.products import add_product

CACHED = 512
"""Rows that stay in a processor's cache while several operations pass over them."""
MODEL_TYPES = ("llama", "mistral", "qwen2")
RECOMPUTED: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
"""Nothing is drawn inside a layer: dropout is drawn before it."""


def supports(config: Any) -> bool:
    """True for models whose layers are those of this file: rotary attention, RMS norms, a gated SiLU, no sliding window."""
    return (
        config.model_type in MODEL_TYPES
        and config.hidden_act == "silu"
        and not (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))
    )


@dataclass(frozen=True)
class Plan:
    """What one layer computes with."""

    qkv: Group
    o: Group
    gate_up: Group
    down: Group
    norms: tuple[Tensor, Tensor]
    """Weights of the two norms, (d,)."""
    epsilon: float
    heads: Heads

    @property
    def groups(self) -> tuple[Group, ...]:
        """In the order in which they are computed."""
        return (self.qkv, self.o, self.gate_up, self.down)


class FusedDecoder:
    """The decoder of a base, layer by layer as one node each.

    Args:
        model: a causal language model that `supports` accepts, its adapted matrices replaced by routed layers.

    Attributes:
        checkpoint: each layer keeps its input alone, and is computed again on the way back.
    """

    def __init__(self, model: Any) -> None:
        self.checkpoint = False
        self.decoder = model.get_decoder()
        self.plans = [_plan(layer, model.config) for layer in self.decoder.layers]

    def ready(self) -> bool:
        """True where gradients are needed and every matrix has factors and one gain for all rows."""
        return torch.is_grad_enabled() and all(
            layer.lora_B is not None
            and layer.lora_B.shape[1] > 0
            and layer.rank_scale is not None
            and layer.rank_scale.dim() == 1
            for plan in self.plans
            for group in plan.groups
            for layer in group.layers
        )

    def __call__(self, ids: Tensor, answer: Tensor) -> Tensor:
        """Hidden states (n, d) at the places before answer tokens, in their order.

        Args:
            ids: (B, T) token ids, padded on the right.
            answer: (B, T) True where a token is to be predicted; nothing after the last one of a row is computed.
        """
        layout, rows = lay_out(ids, answer, self.decoder, self.plans[0].heads)
        for plan in self.plans:
            wanted = layout.wanted if plan is self.plans[-1] else None
            left = rows if wanted is None else wanted
            keeps = (
                draw_dropout_mask(plan.qkv.layers, rows),
                *(draw_dropout_mask(group.layers, rows, len(left)) for group in plan.groups[1:]),
            )
            inputs = (rows, *(group.gain() for group in plan.groups), plan, layout, keeps, wanted)
            rows = recomputed(_Layer.apply, *inputs, **RECOMPUTED) if self.checkpoint else _Layer.apply(*inputs)
        hidden: Tensor = self.decoder.norm(rows[: int(answer[:, 1:].sum())])
        return hidden


def _plan(layer: Any, config: Any) -> Plan:
    attention, feed = layer.self_attn, layer.mlp
    return Plan(
        qkv=Group.of(attention.q_proj, attention.k_proj, attention.v_proj),
        o=Group.of(attention.o_proj),
        gate_up=Group.of(feed.gate_proj, feed.up_proj),
        down=Group.of(feed.down_proj),
        norms=(layer.input_layernorm.weight, layer.post_attention_layernorm.weight),
        epsilon=config.rms_norm_eps,
        heads=Heads(config.num_attention_heads, config.num_key_value_heads, attention.head_dim, attention.scaling),
    )


class _Layer(torch.autograd.Function):
    """One decoder layer on rows (N, d)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain_qkv: Tensor, gain_o: Tensor, gain_gate_up: Tensor, gain_down: Tensor,
        plan: Plan, layout: Layout, keeps: tuple[Tensor | None, ...], wanted: Tensor | None,
    ) -> Tensor:  # fmt: skip
        gains = [gain.to(x.dtype) for gain in (gain_qkv, gain_o, gain_gate_up, gain_down)]
        first, scale_1 = _normalised(x, plan.norms[0], plan.epsilon)
        qkv, state_qkv = _adapted(plan.qkv, first, gains[0], keeps[0])
        q, k, v = to_heads(qkv, layout)
        mixed, chances = blocks.attend(q, k, v, layout.mask)
        attended = mixed.view(-1, plan.heads.width).index_select(0, layout.from_queries).view(x.shape[0], -1)
        residual = x if wanted is None else x[wanted]
        attended = attended if wanted is None else attended[wanted]
        middle, state_o = _adapted(plan.o, attended, gains[1], keeps[1], residual)
        second, scale_2 = _normalised(middle, plan.norms[1], plan.epsilon)
        gate_up, state_gate_up = _adapted(plan.gate_up, second, gains[2], keeps[2])
        gate, up = gate_up.chunk(2, dim=-1)
        active = functional.silu(gate)
        y, state_down = _adapted(plan.down, active * up, gains[3], keeps[3], middle)
        ctx.save_for_backward(
            x, scale_1, first, q, k, v, attended, middle, scale_2, second, gate_up, active, *gains,
            *state_qkv, *state_o, *state_gate_up, *state_down, *chances,
        )  # fmt: skip
        ctx.plan, ctx.layout, ctx.keeps, ctx.wanted, ctx.gain_dtype = plan, layout, keeps, wanted, gain_qkv.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        (x, scale_1, first, q, k, v, attended, middle, scale_2, second, gate_up, active, *rest) = ctx.saved_tensors
        plan, layout = ctx.plan, ctx.layout
        gains, states, chances = rest[:4], [rest[4 + 4 * i : 8 + 4 * i] for i in range(4)], rest[20:]

        def back(index: int, grad: Tensor, rows: Tensor, needed: bool = True) -> tuple[Tensor, Tensor]:
            return _adapted_back(plan.groups[index], grad, rows, gains[index], ctx.keeps[index], states[index], needed)

        grad = outputs[0]
        gate, up = gate_up.chunk(2, dim=-1)
        grad_fed, grad_gain_down = back(3, grad, active * up)
        grad_second, grad_gain_gate_up = back(2, _gated_back(grad_fed, gate, up, active), second)
        grad_middle = _normalised_back(grad_second, middle, plan.norms[1], scale_2, grad)
        grad_attended, grad_gain_o = back(1, grad_middle, attended)
        if ctx.wanted is not None:
            grad_attended, grad_middle = (_spread(part, ctx.wanted, x.shape[0]) for part in (grad_attended, grad_middle))
        by_head = grad_attended.view(-1, plan.heads.width).index_select(0, layout.to_queries).view(q.shape)
        found = blocks.attend_back(by_head, q, k, v, chances)
        needed = ctx.needs_input_grad[0]
        grad_first, grad_gain_qkv = back(0, to_heads_back(*found, layout), first, needed)
        grad_x = _normalised_back(grad_first, x, plan.norms[0], scale_1, grad_middle) if needed else None
        grad_gains = (grad_gain_qkv, grad_gain_o, grad_gain_gate_up, grad_gain_down)
        return grad_x, *(gain.to(ctx.gain_dtype) for gain in grad_gains), None, None, None, None


State = tuple[Tensor, Tensor, Tensor, Tensor]
"""U, V, the rank activations before and after the gain; where the delta was added, the sum and three empty ones."""


def _adapted(
    group: Group, rows: Tensor, gain: Tensor, dropout_mask: Tensor | None, residual: Tensor | None = None
) -> tuple[Tensor, State]:
    """The rows through a group of matrices and their factors, plus a residual; and what the backward needs."""
    if residual is None:
        residual = group.bias
    elif group.bias is not None:
        residual = residual + group.bias
    if group.sums(len(rows)):
        weight, none = group.summed(gain), rows.new_empty(0)
        start = rows.new_zeros(len(rows), len(weight)) if residual is None else residual.expand(len(rows), -1).clone()
        return add_product(start, rows, weight.T), (weight, none, none, none)
    u, v = group.factors()
    y, hidden, scaled = lora_linear(rows, group.weight, residual, u, v, gain, dropout_mask)
    return y, (u, v, hidden, scaled)


def _adapted_back(
    group: Group, grad: Tensor, rows: Tensor, gain: Tensor, dropout_mask: Tensor | None, state: State, needed: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of the rows (empty where not needed) and of the gain; those of U and V go to their buffers."""
    u, v, hidden, scaled = state
    if group.sums(len(rows)):
        grad_rows = add_product(torch.zeros_like(rows), grad, u) if needed else grad.new_empty(0)
        return grad_rows, group.gain_gradient(grad, rows)
    trained = group.layers[0].grads is not None
    grad_gain, grad_hidden, grad_u, grad_v = lora_linear_backward(grad, rows, u, gain, hidden, scaled, dropout_mask, trained)
    if grad_u is not None and grad_v is not None:
        group.add_gradients(grad_u, grad_v)
    return add_product(grad_hidden @ v, grad, group.weight) if needed else grad.new_empty(0), grad_gain


def _normalised(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMS norm of rows (N, d), computed in float32 some rows at a time, and 1 / root mean square, (N, 1) float32."""
    out, scale = torch.empty_like(x), x.new_empty(x.shape[0], 1, dtype=torch.float32)
    for rows, part, norms in zip(x.split(CACHED), out.split(CACHED), scale.split(CACHED), strict=True):
        wide = rows.float()
        torch.linalg.vector_norm(wide, dim=-1, keepdim=True, out=norms)
        norms.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        part.copy_(wide * norms).mul_(weight)
    return out, scale


def _normalised_back(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """Gradient of the rows that were normalised, and that of the way residual the norm: scale g w - x scale^3 (g w . x) / d."""
    out, wide_weight = torch.empty_like(x), weight.float()
    for into, *parts in zip(*(part.split(CACHED) for part in (out, grad, x, scale, residual)), strict=True):
        weighted, rows, scales = parts[0] * wide_weight, parts[1].float(), parts[2]
        along = (weighted * rows).sum(-1, keepdim=True).mul_(scales.pow(3)).div_(-x.shape[-1])  # (N, 1)
        into.copy_((rows * along).addcmul_(weighted, scales).add_(parts[3]))
    return out


def _spread(grad: Tensor, rows: Tensor, count: int) -> Tensor:
    """Gradients (n, d) of chosen rows among `count` rows, 0 elsewhere; spare rows, chosen more than once, have none."""
    return grad.new_zeros(count, grad.shape[1]).index_copy_(0, rows, grad)


def _gated_back(grad: Tensor, gate: Tensor, up: Tensor, active: Tensor) -> Tensor:
    """The gradient of [gate|up] from that of silu(gate) * up."""
    out = grad.new_empty(grad.shape[0], 2 * grad.shape[1])
    grad_gate, grad_up = out.chunk(2, dim=-1)
    torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
    torch.mul(active, grad, out=grad_up)
    return out
