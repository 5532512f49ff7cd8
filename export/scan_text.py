"""The text of the scan's function, for the parser of ONNX; see :mod:`export.scan_function`.

The function first collects the tokens in the sequence of the steps. A ``Scan`` then takes a chunk
of steps per iteration. At the end, each token collects its y from the steps.

Runtimes differ in what they accept. So the text has these rules:

* Constants of integers are tensors, ``value``. Inside functions, ONNX Runtime before 1.25 does not
  see the size of ``value_ints``.
* The body of the ``Scan`` uses nothing from outside it, because OpenVINO could not read it. The
  parameters pass through it as states that do not change.
* ``Pad`` has no axes, which OpenVINO before 2026 does not read.
* Sizes in the body have no names. ONNX Runtime lets values share memory whose sizes have the same
  name, and the names of a body's results also hold for other scans, whose sizes differ.
* Types follow those of the parameters, so that converters may change them.

Shape suffixes: B batch, L tokens, P places (L tokens and a zero token at the end), K directions,
O orders (one for all images, or one for each), S steps, T steps padded to full chunks, at least one
step more, G chunks, Q steps of a chunk, E inner channels, R rank of the step, N states, V = R + 2N.
J is images times places, X is images times places times directions, I is the rows of y.
"""

from __future__ import annotations

from zoo.ops.scan.names import EACH, SUM

# A zero token is appended to the others. Steps that visit none visit the zero token, whose y is
# zero, and tokens that no step visits collect the y of a step after the last one.
FUNCTION = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <{attributes}>
({inputs}) => (y)
{{
  zero = Constant <value = int64 {{0}}> ()
  one = Constant <value = int64 {{1}}> ()
  zero_1 = Constant <value = int64[1] {{0}}> ()
  one_1 = Constant <value = int64[1] {{1}}> ()
  rest_1 = Constant <value = int64[1] {{-1}}> ()
  chunk_1 = Constant <value = int64[1] {{{chunk}}}> ()
  step_axis = Constant <value = int64[1] {{2}}> ()
  direction_axis = Constant <value = int64[1] {{2}}> ()
  last_axis = Constant <value = int64[1] {{-1}}> ()

  batch_1 = Shape <start = 0, end = 1> (u)
  tokens_1 = Shape <start = 1, end = 2> (u)
  channels_1 = Shape <start = 2, end = 3> (u)
  directions_1 = Shape <start = 0, end = 1> (A)
  states_1 = Shape <start = 2, end = 3> (A)
  rank_1 = Shape <start = 2, end = 3> (delta_weight)
  steps_1 = Shape <start = -1> (order)
  places_1 = Add (tokens_1, one_1)
  batch = Squeeze (batch_1)
  directions = Squeeze (directions_1)
  steps = Squeeze (steps_1)
  none = Squeeze (tokens_1)
  k_K = Range (zero, directions, one)
  k_K1 = Unsqueeze (k_K, one_1)
  b_B = Range (zero, batch, one)
  b_axes = Constant <value = int64[2] {{1, 2}}> ()
  b_B11 = Unsqueeze (b_B, b_axes)

  # The place that each step visits. Chunks come first, then images, because Scan goes along axis 0.
  order_shape = Concat <axis = 0> (rest_1, directions_1, steps_1)
  given_OKS = Reshape (order, order_shape)
  order_OKS = Cast <to = 7> (given_OKS)
  idle_OKS = Less (order_OKS, zero)
  visit_OKS = Where (idle_OKS, none, order_OKS)
  full_1 = Div (steps_1, chunk_1)
  chunks_1 = Add (full_1, one_1)
  together_1 = Mul (chunks_1, chunk_1)
  more_1 = Sub (together_1, steps_1)
  no_pads = Constant <value = int64[5] {{0, 0, 0, 0, 0}}> ()
  step_pads = Concat <axis = 0> (no_pads, more_1)
  visit_OKT = Pad (visit_OKS, step_pads, none)
  first_B11 = Mul (b_B11, places_1)
  place_BKT = Add (visit_OKT, first_B11)
  chunks_shape = Concat <axis = 0> (batch_1, directions_1, chunks_1, chunk_1)
  place_BKGQ = Reshape (place_BKT, chunks_shape)
  place_GBKQ = Transpose <perm = [2, 0, 1, 3]> (place_BKGQ)
  of_place_GBKQ = Mul (place_GBKQ, directions_1)
  row_GBKQ = Add (of_place_GBKQ, k_K1)

  pads_BLE = Constant <value = int64[6] {{0, 0, 0, 0, 1, 0}}> ()
  pads_BLKV = Constant <value = int64[8] {{0, 0, 0, 0, 0, 1, 0, 0}}> ()
  u_BLE = CastLike (u, delta_bias)
  u_BPE = Pad (u_BLE, pads_BLE)
  rows_of_E = Concat <axis = 0> (rest_1, channels_1)
  u_JE = Reshape (u_BPE, rows_of_E)
  u_GBKQE = Gather <axis = 0> (u_JE, place_GBKQ)

  # The other inputs are collected together, and separated afterwards.
  from_B_1 = Add (rank_1, states_1)
  from_C_1 = Add (from_B_1, states_1)
  delta_BLKR = CastLike (delta, delta_bias)
  B_BLKN = CastLike (B, delta_bias)
  C_BLKN = CastLike (C, delta_bias)
  all_BLKV = Concat <axis = 3> (delta_BLKR, B_BLKN, C_BLKN)
  all_BPKV = Pad (all_BLKV, pads_BLKV)
  rows_of_V = Concat <axis = 0> (rest_1, from_C_1)
  all_XV = Reshape (all_BPKV, rows_of_V)
  all_GBKQV = Gather <axis = 0> (all_XV, row_GBKQ)
  delta_GBKQR = Slice (all_GBKQV, zero_1, rank_1, last_axis)
  B_GBKQN = Slice (all_GBKQV, rank_1, from_B_1, last_axis)
  C_GBKQN = Slice (all_GBKQV, from_B_1, from_C_1, last_axis)

  weight_KRE = Transpose <perm = [0, 2, 1]> (delta_weight)
  bias_K1E = Unsqueeze (delta_bias, one_1)
  A_KNE = Transpose <perm = [0, 2, 1]> (A)
  A_K1NE = Unsqueeze (A_KNE, one_1)
  D_K1E = Unsqueeze (D, one_1)
  state_shape = Concat <axis = 0> (batch_1, directions_1, one_1, states_1, channels_1)
  empty_BK1NE = ConstantOfShape <value = float[1] {{0}}> (state_shape)
  start_BK1NE = CastLike (empty_BK1NE, delta_bias)

  # The state is (..., N, E), so that every product runs along channels.
  end_A, end_D, end_weight, end_bias, end_h, y_GBKQE = Scan <num_scan_inputs = 4, body = chunk (
      float[?,?,?,?] A_given, float[?,?,?] D_given, float[?,?,?] weight_given,
      float[?,?,?] bias_given, float[?,?,?,?,?] before_BK1NE,
      float[?,?,?,?] u_BKQE, float[?,?,?,?] delta_BKQR,
      float[?,?,?,?] B_BKQN, float[?,?,?,?] C_BKQN
    ) => (
      float[?,?,?,?] A_passed, float[?,?,?] D_passed, float[?,?,?] weight_passed,
      float[?,?,?] bias_passed, float[?,?,?,?,?] after_BK1NE, float[?,?,?,?] y_BKQE
    ) {{
      A_passed = Identity (A_given)
      D_passed = Identity (D_given)
      weight_passed = Identity (weight_given)
      bias_passed = Identity (bias_given)
      n_axis = Constant <value = int64[1] {{3}}> ()
      e_axis = Constant <value = int64[1] {{4}}> ()

      projected_BKQE = MatMul (delta_BKQR, weight_given)
      raw_BKQE = Add (projected_BKQE, bias_given)
      {softplus}
      step_BKQ1E = Unsqueeze (step_BKQE, n_axis)
      exponent_BKQNE = Mul (step_BKQ1E, A_given)
      decay_BKQNE = Exp (exponent_BKQNE)
      scaled_BKQE = Mul (step_BKQE, u_BKQE)
      scaled_BKQ1E = Unsqueeze (scaled_BKQE, n_axis)
      B_BKQN1 = Unsqueeze (B_BKQN, e_axis)
      added_BKQNE = Mul (scaled_BKQ1E, B_BKQN1)
      {recurrence}
      skipped_BKQE = Mul (D_given, u_BKQE)
      y_BKQE = Add (read_BKQE, skipped_BKQE)
    }}> (A_K1NE, D_K1E, weight_KRE, bias_K1E, start_BK1NE, u_GBKQE, delta_GBKQR, B_GBKQN, C_GBKQN)

  # The step at which each direction visits a token; if it does not, the first step after the last.
  orders_1 = Shape <start = 0, end = 1> (order_OKS)
  all_places = Concat <axis = 0> (orders_1, directions_1, places_1)
  never_OKP = Expand (steps, all_places)
  s_S = Range (zero, steps, one)
  s_shape = Shape (order_OKS)
  s_OKS = Expand (s_S, s_shape)
  when_OKP = ScatterElements <axis = 2> (never_OKP, visit_OKS, s_OKS)
  when_OKL = Slice (when_OKP, zero_1, tokens_1, step_axis)
  when_OLK = Transpose <perm = [0, 2, 1]> (when_OKL)
  chunk_OLK = Div (when_OLK, chunk_1)
  before_OLK = Mul (chunk_OLK, chunk_1)
  q_OLK = Sub (when_OLK, before_OLK)
  of_chunk_OLK = Mul (chunk_OLK, batch_1)
  of_image_BLK = Add (of_chunk_OLK, b_B11)
  of_directions_BLK = Mul (of_image_BLK, directions_1)
  of_direction_BLK = Add (of_directions_BLK, k_K)
  of_steps_BLK = Mul (of_direction_BLK, chunk_1)
  row_BLK = Add (of_steps_BLK, q_OLK)
  y_IE = Reshape (y_GBKQE, rows_of_E)
  y_BLKE = Gather <axis = 0> (y_IE, row_BLK)
  {result}
}}
"""

RESULTS = {
    EACH: "y = CastLike (y_BLKE, u)",
    SUM: """sum_BLE = ReduceSum <keepdims = 0> (y_BLKE, direction_axis)
  y = CastLike (sum_BLE, u)""",
}

SOFTPLUS = "step_BKQE = Softplus (raw_BKQE)"

# max(x, 0) + log(1 + e), where e = exp(-|x|). The sum 1 + e rounds e. What it loses is divided by
# 1 + e and added to the logarithm. ONNX Runtime's Softplus is as accurate, but three times as slow.
SOFTPLUS_IN_PARTS = """unit = Constant <value = float {1.0}> ()
      far_BKQE = Abs (raw_BKQE)
      near_BKQE = Neg (far_BKQE)
      e_BKQE = Exp (near_BKQE)
      sum_BKQE = Add (e_BKQE, unit)
      rounded_BKQE = Sub (sum_BKQE, unit)
      lost_BKQE = Sub (e_BKQE, rounded_BKQE)
      small_BKQE = Div (lost_BKQE, sum_BKQE)
      log_BKQE = Log (sum_BKQE)
      curved_BKQE = Add (log_BKQE, small_BKQE)
      straight_BKQE = Relu (raw_BKQE)
      step_BKQE = Add (straight_BKQE, curved_BKQE)"""

_SPLIT = """ones_Q = Constant <value = int64[{chunk}] {{{ones}}}> ()
      {decays} = Split <axis = 2> (decay_BKQNE, ones_Q)
      {additions} = Split <axis = 2> (added_BKQNE, ones_Q)
      kept_0 = Mul (decay_0, before_BK1NE)
      state_0 = Add (kept_0, added_0)"""

_STEP = """
      kept_{i} = Mul (decay_{i}, state_{last})
      state_{i} = Add (kept_{i}, added_{i})"""

_READ = """
      state_BKQNE = Concat <axis = 2> ({states})
      after_BK1NE = Identity (state_{last})
      C_BKQ1N = Unsqueeze (C_BKQN, n_axis)
      read_BKQ1E = MatMul (C_BKQ1N, state_BKQNE)
      read_BKQE = Squeeze (read_BKQ1E, n_axis)"""


def one_by_one(chunk: int) -> str:
    """Text that computes the states of a chunk one after the other."""

    def names(name: str) -> str:
        return ", ".join(f"{name}_{i}" for i in range(chunk))

    split = _SPLIT.format(
        chunk=chunk, ones=", ".join("1" * chunk), decays=names("decay"), additions=names("added")
    )
    steps = "".join(_STEP.format(i=i, last=i - 1) for i in range(1, chunk))
    return split + steps + _READ.format(states=names("state"), last=chunk - 1)


# On a GPU, each operator launches a kernel, whatever its size, so here operators take the whole
# chunk. The decay and the sum at step q cover the last 1, 2, 4, ... steps, doubling until they
# reach the first step of the chunk.
_DOUBLINGS = """q_axis = Constant <value = int64[1] {{2}}> ()
      first_q = Constant <value = int64[1] {{0}}> ()
      last_q = Constant <value = int64[1] {{{last}}}> ()
      nothing = Constant <value = float {{0.0}}> ()
      unchanged = Constant <value = float {{1.0}}> ()
      decay_0 = Identity (decay_BKQNE)
      sum_0 = Identity (added_BKQNE)"""

_DOUBLING = """
      pads_{i} = Constant <value = int64[2] {{{reach}, 0}}> ()
      end_{i} = Constant <value = int64[1] {{{rest}}}> ()
      early_sum_{i} = Slice (sum_{i}, first_q, end_{i}, q_axis)
      before_sum_{i} = Pad (early_sum_{i}, pads_{i}, nothing, q_axis)
      reached_{i} = Mul (decay_{i}, before_sum_{i})
      sum_{next} = Add (sum_{i}, reached_{i})
      early_decay_{i} = Slice (decay_{i}, first_q, end_{i}, q_axis)
      before_decay_{i} = Pad (early_decay_{i}, pads_{i}, unchanged, q_axis)
      decay_{next} = Mul (decay_{i}, before_decay_{i})"""

_READ_TOGETHER = """
      kept_BKQNE = Mul (decay_{doubled}, before_BK1NE)
      state_BKQNE = Add (sum_{doubled}, kept_BKQNE)
      after_BK1NE = Gather <axis = 2> (state_BKQNE, last_q)
      C_BKQN1 = Unsqueeze (C_BKQN, e_axis)
      weighted_BKQNE = Mul (C_BKQN1, state_BKQNE)
      read_BKQE = ReduceSum <keepdims = 0> (weighted_BKQNE, n_axis)"""


def together(chunk: int) -> str:
    """Text that computes all states of a chunk at the same time; ``chunk`` is a power of two."""
    doublings = chunk.bit_length() - 1
    return (
        _DOUBLINGS.format(last=chunk - 1)
        + "".join(
            _DOUBLING.format(i=i, next=i + 1, reach=2**i, rest=chunk - 2**i)
            for i in range(doublings)
        )
        + _READ_TOGETHER.format(doubled=doublings)
    )
