"""What a compiled program for a GPU moves, read from its text; compiling one takes packages and minutes."""

from benchmarks.gpu_program import Kernel, is_product, kernels, table

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused_convert (param_0: f32[4,8], param_1: f16[4,8]) -> f16[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %param_1 = f16[4,8]{1,0} parameter(1)
  %convert.1 = f32[4,8]{1,0} convert(%param_1)
  %add.1 = f32[4,8]{1,0} add(%param_0, %convert.1)
  ROOT %convert.2 = f16[4,8]{1,0} convert(%add.1)
}

%gemm_fusion_dot_computation (parameter_0: f16[4,8], parameter_1: f16[8,8]) -> f16[4,8] {
  %parameter_0 = f16[4,8]{1,0} parameter(0)
  %parameter_1 = f16[8,8]{1,0} parameter(1)
  %transpose.9 = f16[8,8]{0,1} transpose(%parameter_1), dimensions={1,0}
  ROOT %dot.1 = f16[4,8]{1,0} dot(%parameter_0, %transpose.9)
}

ENTRY %main.3 (x: f32[4,8], k: f16[8,8]) -> f16[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %k = f16[8,8]{1,0} parameter(1)
  %conv.1 = (f16[4,8]{1,0}, u8[16]{0}) custom-call(%x, %k), custom_call_target="__cudnn$convForward"
  %get-tuple-element.1 = f16[4,8]{1,0} get-tuple-element(%conv.1), index=0
  %loop_convert_fusion.2 = f16[4,8]{1,0} fusion(%x, %get-tuple-element.1), kind=kLoop, calls=%fused_convert
  ROOT %gemm_fusion_dot.1 = f16[4,8]{1,0} fusion(%loop_convert_fusion.2, %k), calls=%gemm_fusion_dot_computation
}
"""


def test_kernels_count_what_they_read_and_write():
    """And not what a fusion has inside, which stays in registers."""
    assert list(kernels(PROGRAM)) == [
        Kernel("__cudnn$convForward", 64 + 16 + 128 + 128),
        Kernel("loop_convert_fusion", 64 + 128 + 64),
        Kernel("gemm_fusion_dot", 64 + 64 + 128),
    ]


def test_the_table_leaves_products_out_of_what_can_be_compared():
    found = list(kernels(PROGRAM))
    assert [is_product(kernel) for kernel in found] == [False, False, True]
    million = [kernel._replace(bytes=1_000_000 * kernel.bytes) for kernel in found]
    assert table(million).splitlines()[2:] == [
        "| `__cudnn$convForward` | 1 | 0.34 |",
        "| `loop_convert_fusion` | 1 | 0.26 |",
        "| `gemm_fusion_dot` | 1 | 0.26 |",
        "| all but products | | 0.59 |",
    ]
