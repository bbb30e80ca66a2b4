"What must hold on a GPU."
import pytest, torch
from safetensors.torch import load_file
from imgstudy.train import create_run, train


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_a_gpu_run_repeats_bit_for_bit_and_says_what_it_used(model, tmp_path):
    run = create_run(dataset='digits', model=model, epochs=2, subset=300)
    a, b = (train(run, root=tmp_path/name) for name in 'ab')
    wa, wb = (load_file(r.path/'weights.safetensors') for r in (a, b))
    assert all(torch.equal(wa[k], wb[k]) for k in wa)
    assert a.info['environment']['gpu'] == torch.cuda.get_device_name()
    assert a.info['model']['channels_last'] and a.info['model']['precision'] in ('bf16', 'fp32')
