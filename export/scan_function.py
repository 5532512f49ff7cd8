"""The selective scan as a function of standard ONNX operators.

Every scan of an exported file is one node of the domain ``zoo``. A runtime that does not know the
node runs the function of the same name in the file. The names are in :mod:`zoo.ops.scan.names`. The
inputs are those of :data:`zoo.ops.scan.contract.SCHEMA`; all are required.

Shape suffixes: B batch, L tokens, P places (L tokens and a zero token at the end), K directions,
S steps, T steps padded by at least one, G chunks, Q steps of a chunk, E inner channels, R rank of
the step, N states. J is directions times places, direction by direction; I is the rows of y.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import FunctionProto, ModelProto, NodeProto

from zoo.ops.scan.contract import SCHEMA
from zoo.ops.scan.names import EACH, NAMESPACE, NODES, PLUGIN_ATTRIBUTES, SUM

CHUNK = 64
"""Steps per iteration of the function for TensorRT; a power of two."""

# A zero token is appended to the others. Its output is zero, and tokens that no step visits read
# their y there. The state is (B, K, N, E), so that every product runs along channels.
_BEGIN = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <{attributes}>
({inputs}) => (y)
{{
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  zero_1 = Constant <value_ints = [0]> ()
  one_1 = Constant <value_ints = [1]> ()
  rest_1 = Constant <value_ints = [-1]> ()
  token_axis = Constant <value_ints = [1]> ()
  step_axis = Constant <value_ints = [1]> ()
  direction_axis = Constant <value_ints = [2]> ()

  batch_1 = Shape <start = 0, end = 1> (u)
  tokens_1 = Shape <start = 1, end = 2> (u)
  channels_1 = Shape <start = 2, end = 3> (u)
  directions_1 = Shape <start = 0, end = 1> (order)
  steps_1 = Shape <start = 1, end = 2> (order)
  states_1 = Shape <start = 2, end = 3> (A)
  places_1 = Add (tokens_1, one_1)
  batch = Squeeze (batch_1)
  directions = Squeeze (directions_1)
  steps = Squeeze (steps_1)
  k_K = Range (zero, directions, one)
  k_K1 = Unsqueeze (k_K, one_1)
  first_K1 = Mul (k_K1, places_1)

  order_KS = Cast <to = 7> (order)
  none_KS = Less (order_KS, zero)
  visit_KS = Where (none_KS, tokens_1, order_KS)
  last_pads = Constant <value_ints = [0, 1]> ()
  last_value = Squeeze (tokens_1)

  u_BLE = Cast <to = 1> (u)
  u_BPE = Pad (u_BLE, last_pads, , token_axis)
  delta_BLKR = Cast <to = 1> (delta)
  delta_BPKR = Pad (delta_BLKR, last_pads, , token_axis)
  delta_BKPR = Transpose <perm = [0, 2, 1, 3]> (delta_BPKR)
  weight_KRE = Transpose <perm = [0, 2, 1]> (delta_weight)
  projected_BKPE = MatMul (delta_BKPR, weight_KRE)
  bias_K1E = Unsqueeze (delta_bias, one_1)
  raw_BKPE = Add (projected_BKPE, bias_K1E)
  step_BKPE = Softplus (raw_BKPE)
  B_BLKN = Cast <to = 1> (B)
  B_BPKN = Pad (B_BLKN, last_pads, , token_axis)
  B_BKPN = Transpose <perm = [0, 2, 1, 3]> (B_BPKN)
  C_BLKN = Cast <to = 1> (C)
  C_BPKN = Pad (C_BLKN, last_pads, , token_axis)
  C_BKPN = Transpose <perm = [0, 2, 1, 3]> (C_BPKN)
  A_KNE = Transpose <perm = [0, 2, 1]> (A)
  D_K1E = Unsqueeze (D, one_1)
  state_shape = Concat <axis = 0> (batch_1, directions_1, states_1, channels_1)
  start_BKNE = ConstantOfShape <value = float[1] {{0}}> (state_shape)
"""

_STEP_BY_STEP = """
  visit_KT = Pad (visit_KS, last_pads, last_value, step_axis)
  place_KT = Add (visit_KT, first_K1)
  visit_TK = Transpose <perm = [1, 0]> (visit_KT)
  place_TK = Transpose <perm = [1, 0]> (place_KT)

  u_BP1E = Unsqueeze (u_BPE, direction_axis)
  step_shape = Concat <axis = 0> (batch_1, rest_1, one_1, channels_1)
  step_BJ1E = Reshape (step_BKPE, step_shape)
  B_shape = Concat <axis = 0> (batch_1, rest_1, states_1, one_1)
  B_BJN1 = Reshape (B_BKPN, B_shape)
  C_shape = Concat <axis = 0> (batch_1, rest_1, one_1, states_1)
  C_BJ1N = Reshape (C_BKPN, C_shape)

  end_BKNE, y_TBK1E = Scan <num_scan_inputs = 2, body = step (
      float[b_in,k_in,n_in,e_in] h_BKNE, int64[k_visit] visit_K, int64[k_place] place_K
    ) => (
      float[b_out,k_out,n_out,e_out] next_BKNE, float[b_y,k_y,one_y,e_y] y_BK1E
    ) {{
      u_BK1E = Gather <axis = 1> (u_BP1E, visit_K)
      step_BK1E = Gather <axis = 1> (step_BJ1E, place_K)
      B_BKN1 = Gather <axis = 1> (B_BJN1, place_K)
      C_BK1N = Gather <axis = 1> (C_BJ1N, place_K)
      exponent_BKNE = Mul (step_BK1E, A_KNE)
      decay_BKNE = Exp (exponent_BKNE)
      kept_BKNE = Mul (decay_BKNE, h_BKNE)
      scaled_BK1E = Mul (step_BK1E, u_BK1E)
      added_BKNE = Mul (scaled_BK1E, B_BKN1)
      next_BKNE = Add (kept_BKNE, added_BKNE)
      read_BK1E = MatMul (C_BK1N, next_BKNE)
      passed_BK1E = Mul (D_K1E, u_BK1E)
      y_BK1E = Add (read_BK1E, passed_BK1E)
    }}> (start_BKNE, visit_TK, place_TK)
"""

# On a GPU, each iteration of the loop launches several kernels, whatever their size, so here an
# iteration processes a whole chunk. Inside a chunk, the decay and the sum at step q cover the last
# 1, 2, 4, ... steps, doubling until they reach the first step of the chunk.
_CHUNK_BY_CHUNK = """
  chunk_1 = Constant <value_ints = [{chunk}]> ()
  full_1 = Div (steps_1, chunk_1)
  chunks_1 = Add (full_1, one_1)
  together_1 = Mul (chunks_1, chunk_1)
  idle_1 = Sub (together_1, steps_1)
  idle_pads = Concat <axis = 0> (zero_1, idle_1)
  visit_KT = Pad (visit_KS, idle_pads, last_value, step_axis)
  place_KT = Add (visit_KT, first_K1)
  chunks_shape = Concat <axis = 0> (directions_1, chunks_1, chunk_1)
  visit_KGQ = Reshape (visit_KT, chunks_shape)
  place_KGQ = Reshape (place_KT, chunks_shape)
  visit_GKQ = Transpose <perm = [1, 0, 2]> (visit_KGQ)
  place_GKQ = Transpose <perm = [1, 0, 2]> (place_KGQ)

  step_shape = Concat <axis = 0> (batch_1, rest_1, channels_1)
  step_BJE = Reshape (step_BKPE, step_shape)
  BC_shape = Concat <axis = 0> (batch_1, rest_1, states_1)
  B_BJN = Reshape (B_BKPN, BC_shape)
  C_BJN = Reshape (C_BKPN, BC_shape)
  A_K1NE = Unsqueeze (A_KNE, one_1)
  q_axis = Constant <value_ints = [2]> ()
  n_axis = Constant <value_ints = [3]> ()
  e_axis = Constant <value_ints = [4]> ()
  nothing = Constant <value_float = 0.0> ()
  unchanged = Constant <value_float = 1.0> ()
  last_q = Constant <value_int = {last}> ()

  end_BKNE, y_GBKQE = Scan <num_scan_inputs = 2, body = chunk (
      float[b_in,k_in,n_in,e_in] h_BKNE, int64[k_visit,q_visit] visit_KQ,
      int64[k_place,q_place] place_KQ
    ) => (
      float[b_out,k_out,n_out,e_out] next_BKNE, float[b_y,k_y,q_y,e_y] y_BKQE
    ) {{
      u_BKQE = Gather <axis = 1> (u_BPE, visit_KQ)
      step_BKQE = Gather <axis = 1> (step_BJE, place_KQ)
      B_BKQN = Gather <axis = 1> (B_BJN, place_KQ)
      C_BKQN = Gather <axis = 1> (C_BJN, place_KQ)
      step_BKQ1E = Unsqueeze (step_BKQE, n_axis)
      exponent_BKQNE = Mul (step_BKQ1E, A_K1NE)
      decay_0 = Exp (exponent_BKQNE)
      scaled_BKQE = Mul (step_BKQE, u_BKQE)
      scaled_BKQ1E = Unsqueeze (scaled_BKQE, n_axis)
      B_BKQN1 = Unsqueeze (B_BKQN, e_axis)
      sum_0 = Mul (scaled_BKQ1E, B_BKQN1)
{doublings}
      h_BK1NE = Unsqueeze (h_BKNE, q_axis)
      kept_BKQNE = Mul (decay_{doubled}, h_BK1NE)
      state_BKQNE = Add (sum_{doubled}, kept_BKQNE)
      next_BKNE = Gather <axis = 2> (state_BKQNE, last_q)
      C_BKQN1 = Unsqueeze (C_BKQN, e_axis)
      weighted_BKQNE = Mul (C_BKQN1, state_BKQNE)
      read_BKQE = ReduceSum <keepdims = 0> (weighted_BKQNE, n_axis)
      passed_BKQE = Mul (D_K1E, u_BKQE)
      y_BKQE = Add (read_BKQE, passed_BKQE)
    }}> (start_BKNE, visit_GKQ, place_GKQ)
"""

_DOUBLING = """
      pads_{i} = Constant <value_ints = [{reach}, 0]> ()
      end_{i} = Constant <value_ints = [{rest}]> ()
      early_sum_{i} = Slice (sum_{i}, zero_1, end_{i}, q_axis)
      before_sum_{i} = Pad (early_sum_{i}, pads_{i}, nothing, q_axis)
      reached_{i} = Mul (decay_{i}, before_sum_{i})
      sum_{next} = Add (sum_{i}, reached_{i})
      early_decay_{i} = Slice (decay_{i}, zero_1, end_{i}, q_axis)
      before_decay_{i} = Pad (early_decay_{i}, pads_{i}, unchanged, q_axis)
      decay_{next} = Mul (decay_{i}, before_decay_{i})"""

_END = """
  # The step at which each direction visits a token; if it does not, the first step after the last.
  never_shape = Concat <axis = 0> (directions_1, places_1)
  zeros_KP = ConstantOfShape <value = int64[1] {{0}}> (never_shape)
  never_KP = Add (zeros_KP, steps_1)
  s_S = Range (zero, steps, one)
  s_shape = Shape (order_KS)
  s_KS = Expand (s_S, s_shape)
  when_KP = ScatterElements <axis = 1> (never_KP, visit_KS, s_KS)
  when_KL = Slice (when_KP, zero_1, tokens_1, one_1)
  when_LK = Transpose <perm = [1, 0]> (when_KL)
  when_1LK = Unsqueeze (when_LK, zero_1)
  b_B = Range (zero, batch, one)
  b_axes = Constant <value_ints = [1, 2]> ()
  b_B11 = Unsqueeze (b_B, b_axes)
  y_shape = Concat <axis = 0> (rest_1, channels_1)
  {rows}
  {result}
}}
"""

_ROWS_OF_STEPS = """of_step_1LK = Mul (when_1LK, batch_1)
  of_image_BLK = Add (of_step_1LK, b_B11)
  of_directions_BLK = Mul (of_image_BLK, directions_1)
  row_BLK = Add (of_directions_BLK, k_K)
  y_IE = Reshape (y_TBK1E, y_shape)"""

_ROWS_OF_CHUNKS = """chunk_1LK = Div (when_1LK, chunk_1)
  before_1LK = Mul (chunk_1LK, chunk_1)
  q_1LK = Sub (when_1LK, before_1LK)
  of_chunk_1LK = Mul (chunk_1LK, batch_1)
  of_image_BLK = Add (of_chunk_1LK, b_B11)
  of_directions_BLK = Mul (of_image_BLK, directions_1)
  of_direction_BLK = Add (of_directions_BLK, k_K)
  of_steps_BLK = Mul (of_direction_BLK, chunk_1)
  row_BLK = Add (of_steps_BLK, q_1LK)
  y_IE = Reshape (y_GBKQE, y_shape)"""

_RESULTS = {
    EACH: """y_BLKE = Gather <axis = 0> (y_IE, row_BLK)
  y = CastLike (y_BLKE, u)""",
    SUM: """y_BLKE = Gather <axis = 0> (y_IE, row_BLK)
  sum_BLE = ReduceSum <keepdims = 0> (y_BLKE, direction_axis)
  y = CastLike (sum_BLE, u)""",
}


def scan_function(name: str, opset: int, *, chunked: bool = False) -> FunctionProto:
    """Make the function of one of ``NODES`` from standard operators.

    Args:
        name: name of the node.
        opset: version of the standard operators, 18 or later.
        chunked: whether each iteration processes ``CHUNK`` steps, for TensorRT: about six times the
            arithmetic, but far fewer iterations.
    """
    text = _BEGIN + (_CHUNK_BY_CHUNK if chunked else _STEP_BY_STEP) + _END
    doublings = CHUNK.bit_length() - 1
    text = text.format(
        domain=NAMESPACE,
        inputs=", ".join(SCHEMA),
        name=name,
        opset=opset,
        attributes=", ".join(PLUGIN_ATTRIBUTES),
        chunk=CHUNK,
        last=CHUNK - 1,
        doubled=doublings,
        doublings="\n".join(
            _DOUBLING.format(i=i, next=i + 1, reach=2**i, rest=CHUNK - 2**i)
            for i in range(doublings)
        ),
        rows=_ROWS_OF_CHUNKS if chunked else _ROWS_OF_STEPS,
        result=_RESULTS[name],
    )
    return onnx.parser.parse_function(text)


def scan_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of a model's selective scans. All of them are in the main graph."""
    return [n for n in model.graph.node if n.domain == NAMESPACE and n.op_type in NODES]


def attach_functions(model: ModelProto, *, chunked: bool = False) -> None:
    """Add the functions of its scans to a model; see :func:`scan_function`.

    This must be the last step of an export, because optimisers and version converters inline or
    drop functions.
    """
    strip_functions(model)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    used: Iterable[str] = sorted({node.op_type for node in scan_nodes(model)})
    model.functions.extend(scan_function(name, opset, chunked=chunked) for name in used)


def strip_functions(model: ModelProto) -> None:
    """Remove the functions of the scans. TensorRT up to 10.6 would prefer them to the plugin."""
    kept = [function for function in model.functions if function.domain != NAMESPACE]
    del model.functions[:]
    model.functions.extend(kept)
