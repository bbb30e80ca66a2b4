"What must hold on a GPU."
import pytest, torch
from safetensors.torch import load_file
from imgstudy.training.train import train
from imgstudy.study.create import create_run


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_a_gpu_run_repeats_bit_for_bit_and_says_what_it_used(model, tmp_path):
    run = create_run(dataset='digits', model=model, epochs=2, subset=300)
    a, b = (train(run, root=tmp_path/name) for name in 'ab')
    wa, wb = (load_file(r.path/'weights.safetensors') for r in (a, b))
    assert all(torch.equal(wa[k], wb[k]) for k in wa)
    assert a.info['environment']['gpu'] == torch.cuda.get_device_name()
    assert a.info['model']['channels_last'] and a.info['model']['precision'] in ('bf16', 'fp32')


@pytest.mark.cuda
def test_no_step_waits_for_the_gpu(tmp_path):
    "Between the first batch of an epoch and its last nothing is copied to the CPU."
    from imgstudy.core import seed_everything
    from imgstudy.data.split import load_data
    from imgstudy.training.fit import fit
    from imgstudy.training.learner import create_learner
    from imgstudy.data.loaders import create_dls
    from fastai.basics import Callback
    class Watch(Callback):
        order = -100
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training and self.iter else 'default')
        def after_train(self): torch.cuda.set_sync_debug_mode('default')
    run = create_run(dataset='digits', model='lenet5', epochs=2, augment='basic')
    data = load_data(run)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, data))
    try: fit(learn, run.recipe, cbs=[Watch()])
    finally: torch.cuda.set_sync_debug_mode('default')


@pytest.mark.cuda
def test_a_gpu_counts_its_joules(tmp_path):
    pytest.importorskip('pynvml')
    cost = train(create_run(dataset='digits', model='lenet5', epochs=2, subset=300), root=tmp_path).info['cost']
    assert torch.cuda.get_device_name() in cost['counters'] and 0 < cost['joules'] < 2000*cost['seconds'] # watts


@pytest.mark.cuda
def test_fifty_runs_leave_no_memory_behind(tmp_path):
    "A worker gives back what each run took, with the memory of its graph: the fiftieth leaves no more than the fifth."
    from imgstudy.sweep.workers import run_plain, work
    reserved = []
    for seed in range(50):
        run = create_run(dataset='digits', model='lenet5', epochs=1, seed=seed)
        assert work(run, tmp_path, run_plain) == ('done', '')
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[4], reserved


@pytest.mark.cuda
def test_a_worker_takes_at_most_its_share(tmp_path, monkeypatch):
    from imgstudy.sweep.workers import on_gpu
    monkeypatch.setenv('IMGSTUDY_GPU_MEMORY', '0.1')
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        with on_gpu(), pytest.raises(torch.OutOfMemoryError): torch.empty(int(.2*total), dtype=torch.uint8, device='cuda')
    finally: torch.cuda.set_per_process_memory_fraction(1.)
