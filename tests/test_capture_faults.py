"What a recording of a training step must not do: poison the process, bake in what changes, take what it cannot do, or slow itself down."
import pytest, torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from imgstudy.core import seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training.learner import create_learner
from imgstudy.training.step import Step

base = dict(dataset='digits', model='lenet5', epochs=2, precision='fp32', subset=200, bs=32, augment='none')
loaded = {}


def learner_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, loaded[part_of(run)]))


def step_of(learn):
    "A step of `learn` as it is at the beginning of its first epoch."
    learn.create_opt()
    learn.opt.set_hypers(lr=.01)
    learn.epoch, learn.n_epoch = 0, 1
    learn.model.train()
    step = Step(learn)
    step.begin()
    return step


@pytest.fixture
def on_gpu(monkeypatch):
    "The machine seems to have a GPU; deterministic mode ends with the test."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def test_deterministic_kernels_fill_no_memory(on_gpu):
    "On a CPU an empty tensor is filled by the same code as on a GPU."
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled() and not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.empty(100_000).isnan().all()


class Watch(TorchDispatchMode):
    "Notes the operations that return a tensor in double precision, which Apple's GPUs do not have."
    def __init__(self): super().__init__(); self.seen = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if any(isinstance(t, torch.Tensor) and t.dtype == torch.float64 for t in tree_leaves(out)): self.seen.append(str(func))
        return out


@pytest.mark.parametrize('options', [dict(), dict(opt='adam', clip=.5), dict(opt='sgd', nesterov=True), dict(model='cnn3', dropout=.2, augment='basic'),
                                     dict(augment='standard'), dict(augment='cifar100'), dict(augment='erasing'), dict(augment='affine')], ids=str)
def test_a_step_needs_no_double_precision(options):
    step = step_of(learner_of(create_run(**base | options)))
    with step.gradients(), Watch() as watch: step()
    assert not watch.seen


def test_a_scaled_loss_needs_no_double_precision():
    from imgstudy.training.loss_scale import Scale
    grads = [torch.full((4,), 3.)]
    with Watch() as watch: Scale(torch.device('cpu'), first=2.**16).unscale(grads)
    assert not watch.seen and torch.equal(grads[0], torch.full((4,), 3/2.**16))


@pytest.mark.parametrize('beta', [.999, .9, .95, .85, 0.])
def test_the_bias_of_adam_is_known_to_seven_digits(beta):
    "1 - beta**n in single precision, for 200,000 steps: as the mean of gradients that are all one."
    from imgstudy.training.step import adam_update
    for n in (1, 2, 10, 1000, 200_000):
        p, one = torch.zeros(1), torch.ones(1)
        state = dict(step=torch.tensor([n - 1.]), exp_avg=torch.zeros(1), exp_avg_sq=torch.zeros(1))
        mom = torch.tensor(beta)
        adam_update(p, one, state, torch.tensor(1.), mom, 0.)
        mean, square = 1 - mom.double(), 1 - .999
        exact = mean/(1 - mom.double()**n)/((square/(1 - .999**n))**.5 + 1e-8)
        assert -p.item() == pytest.approx(exact.item(), rel=5e-7)
