"""The text of the scan's function, for the parser of ONNX; see :mod:`export.scan_function`.

The function first collects the tokens in the sequence of the steps. A ``Scan`` then takes a chunk
of steps per iteration; :mod:`export.scan_bodies` has its bodies. At the end, each token collects
its y from the steps.

Runtimes differ in what they accept. So the text has these rules:

* Constants of integers are tensors, ``value``. Inside functions, ONNX Runtime before 1.25 does not
  see the size of ``value_ints``.
* The body of the ``Scan`` uses nothing from outside it, because OpenVINO could not read it. The
  parameters pass through it as states that do not change.
* ``Pad`` has no axes, which OpenVINO before 2026 does not read.
* Sizes in the body have no names. ONNX Runtime lets values share memory whose sizes have the same
  name, and the names of a body's results also hold for other scans, whose sizes differ.
* Types follow those of the parameters, so that converters may change them.

Shape suffixes: B batch, L tokens, P places (a zero token and the L tokens), K directions, O orders
(one for all images, or one for each), S steps, T steps padded to full chunks, at least one step
more, G chunks, Q steps of a chunk, E inner channels, R rank of the step, N states. J is images
times places, X is images times places times directions, I is the rows of y.
"""

from __future__ import annotations

from zoo.ops.scan.names import EACH, SUM

# A zero token comes before the others. Steps that visit none visit the zero token, whose y is zero,
# and tokens that no step visits collect the y of a step after the last one.
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
  paths_1 = Mul (batch_1, directions_1)
  k_K = Range (zero, directions, one)
  k_K1 = Unsqueeze (k_K, one_1)
  b_B = Range (zero, batch, one)
  b_B1 = Unsqueeze (b_B, one_1)
  b_B11 = Unsqueeze (b_B1, one_1)

  # The place that each step visits.
  order_shape = Concat <axis = 0> (rest_1, directions_1, steps_1)
  given_OKS = Reshape (order, order_shape)
  order_OKS = Cast <to = 7> (given_OKS)
  after_zero_OKS = Add (order_OKS, one)
  visit_OKS = Max (after_zero_OKS, zero)
  full_1 = Div (steps_1, chunk_1)
  chunks_1 = Add (full_1, one_1)
  padded_1 = Mul (chunks_1, chunk_1)
  more_1 = Sub (padded_1, steps_1)
  no_pads = Constant <value = int64[5] {{0, 0, 0, 0, 0}}> ()
  step_pads = Concat <axis = 0> (no_pads, more_1)
  visit_OKT = Pad (visit_OKS, step_pads, zero)
  first_B11 = Mul (b_B11, places_1)
  place_BKT = Add (visit_OKT, first_B11)
  {places}

  # What the steps read there.
  pads_BLE = Constant <value = int64[6] {{0, 1, 0, 0, 0, 0}}> ()
  pads_BLKR = Constant <value = int64[8] {{0, 1, 0, 0, 0, 0, 0, 0}}> ()
  rows_of_E = Concat <axis = 0> (rest_1, channels_1)
  rows_of_R = Concat <axis = 0> (rest_1, rank_1)
  rows_of_N = Concat <axis = 0> (rest_1, states_1)
  u_BLE = CastLike (u, delta_bias)
  u_BPE = Pad (u_BLE, pads_BLE)
  u_JE = Reshape (u_BPE, rows_of_E)
  read_u = Gather <axis = 0> (u_JE, places)
  delta_BLKR = CastLike (delta, delta_bias)
  delta_BPKR = Pad (delta_BLKR, pads_BLKR)
  delta_XR = Reshape (delta_BPKR, rows_of_R)
  read_delta = Gather <axis = 0> (delta_XR, rows)
  B_BLKN = CastLike (B, delta_bias)
  B_BPKN = Pad (B_BLKN, pads_BLKR)
  B_XN = Reshape (B_BPKN, rows_of_N)
  read_B = Gather <axis = 0> (B_XN, rows)
  C_BLKN = CastLike (C, delta_bias)
  C_BPKN = Pad (C_BLKN, pads_BLKR)
  C_XN = Reshape (C_BPKN, rows_of_N)
  read_C = Gather <axis = 0> (C_XN, rows)

  {scan}

  # The row of y that each direction writes for a token: the row of its step, or of the first step
  # after the last one. Rows of the first path of an image and direction are first_T.
  padded = Squeeze (padded_1)
  t_T = Range (zero, padded, one)
  {first_rows}
  first_S = Slice (first_T, zero_1, steps_1)
  next_1 = Add (steps_1, one_1)
  never_1 = Slice (first_T, steps_1, next_1)
  orders_1 = Shape <start = 0, end = 1> (order_OKS)
  all_places = Concat <axis = 0> (orders_1, directions_1, places_1)
  never_OKP = Expand (never_1, all_places)
  steps_shape = Shape (order_OKS)
  first_OKS = Expand (first_S, steps_shape)
  first_OKP = ScatterElements <axis = 2> (never_OKP, visit_OKS, first_OKS)
  first_OKL = Slice (first_OKP, one_1, places_1, step_axis)
  of_images_B1 = Mul (b_B1, directions_1)
  path_BK = Add (of_images_B1, k_K)
  path_BK1 = Unsqueeze (path_BK, rest_1)
  of_path_BK1 = Mul (path_BK1, apart_1)
  row_BKL = Add (first_OKL, of_path_BK1)
  y_IE = Reshape (y_steps, rows_of_E)
  {result}
}}
"""

RESULTS = {
    EACH: """row_BLK = Transpose <perm = [0, 2, 1]> (row_BKL)
  y_BLKE = Gather <axis = 0> (y_IE, row_BLK)
  y = CastLike (y_BLKE, u)""",
    SUM: """row_KBL = Transpose <perm = [1, 0, 2]> (row_BKL)
  y_KBLE = Gather <axis = 0> (y_IE, row_KBL)
  {total}
  y = CastLike (y_BLE, u)""",
}
