"A step in fewer operations: the same bits as by the plain functions below, which say what is meant, one operation after the other."
import numpy as np, pytest, torch
from contextlib import contextmanager
from fastai.basics import Callback
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from types import SimpleNamespace
from imgstudy.core import seed_everything
from imgstudy.data import augment as A
from imgstudy.data.augment import BRIGHTNESS, CONTRAST, RAND_OPS, SATURATION, augment_levels, blur_each, grey_each
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training.fit import fit
from imgstudy.training.learner import create_learner
from imgstudy.training.schedule import create_schedule
from imgstudy.training.stacked import Member, StackedHistory, StackedSchedules, StackedStep, stack_learners
from imgstudy.training.step import Chunk, Step, join, views
from recorded import places, tensors

each = lambda v: v[:, None, None, None]

# ---- the plain functions: augmentation

def uniform(x, low, high, shape=()): return torch.rand(len(x), *shape, device=x.device)*(high - low) + low

def affine(x, m, mode='bilinear', pad='zeros'):
    "Read the pixel for (u, v) at (a u + b v + s, c u + d v + t); m: [n, 6]."
    h, w = x.shape[-2:]
    u, v = torch.arange(w) + .5 - w/2, torch.arange(h)[:, None] + .5 - h/2
    a, b, s, c, d, t = m[..., None, None].unbind(1)
    grid = torch.stack([(a*u + b*v + s)*2/w, (c*u + d*v + t)*2/h], -1)
    return F.grid_sample(x, grid, mode, pad, align_corners=False)

def turn(x, angle, mode='nearest', pad='zeros'):
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    zero = torch.zeros_like(cos)
    return affine(x, torch.stack([cos, -sin, zero, sin, cos, zero], 1), mode, pad)

def enlarge(x, top, left, h, w, do):
    H, W = x.shape[-2:]
    zero, m = torch.zeros_like(h), [w/W, left + w/2 - W/2, h/H, top + h/2 - H/2]
    return torch.where(each(do), affine(x, torch.stack([m[0], zero, m[1], zero, *m[2:]], 1), pad='border'), x)

def adjust(x, op, f):
    grey, (contrast, saturation) = grey_each(x), [each((op == o)*(1 - f)) for o in (CONTRAST, SATURATION)]
    other = torch.addcmul(contrast*grey.mean((-2, -1), keepdim=True), saturation, grey)
    return torch.addcmul(other, x, each(f)).clamp_(0, 1)

def jitter(x, order, factors):
    for op in order.unbind(1): x = adjust(x, op, factors.gather(1, op[:, None])[:, 0])
    return x

def drawn(op, name): return op == RAND_OPS.index(name)

def colour(x, op, level):
    grey, o = grey_each(x), each(op)
    other = torch.where(o == CONTRAST, grey.mean((-2, -1), keepdim=True), grey).masked_fill(o == BRIGHTNESS, 0)
    other = torch.where(each(drawn(op, 'sharpness')), blur_each(x), other)
    return torch.lerp(other, x, each(1 + .9*level)).clamp(0, 1)

def move(x, op, level):
    h, w = x.shape[-2:]
    angle, shear_x, shear_y, right, down = (drawn(op, o)*level for o in RAND_OPS[4:9])
    cos, sin = (30*angle).deg2rad().cos(), (30*angle).deg2rad().sin()
    s, t = -(150/331*w*right).trunc(), -(150/331*h*down).trunc()
    return affine(x, torch.stack([cos, .3*shear_x - sin, s, sin + .3*shear_y, cos, t], 1))

def posterize(x, level):
    steps = each((8 - 4*level.abs()).round().exp2())
    return torch.minimum((x*steps).floor(), steps - 1)/steps

def solarize(x, level): return torch.where(x >= 1 - each(level.abs()), 1 - x, x)

def autocontrast(x, level):
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (x - low)/(high - low), x)

def one_op(x, op, level):
    out = torch.where(each(op < 4), colour(x, op, level), x)
    out = torch.where(each((op >= 4) & (op < 9)), move(x, op, level), out)
    for name, f in dict(posterize=posterize, solarize=solarize, autocontrast=autocontrast).items():
        out = torch.where(each(drawn(op, name)), f(x, level), out)
    return out

def rand_augment(x, ops, levels):
    for op, level in zip(ops.unbind(1), levels.unbind(1)): x = one_op(x, op, level)
    return x

# ---- the plain functions: random numbers, as methods of the transforms

def draw_flip(self, x): return uniform(x, 0, 1) < self.p,
def draw_sharpen(self, x): return 1. + (uniform(x, 0, 1) < self.p)*(self.factor - 1),
def draw_jitter(self, x):
    factors = torch.stack([uniform(x, 1 - l, 1 + l) for l in self.limits], 1)
    return uniform(x, 0, 1, (3,)).argsort(1), factors

def boxes(x, scale, ratio, spare=0, tries=10):
    H, W = x.shape[-2:]
    area, aspect = uniform(x, *scale, (tries,))*H*W, uniform(x, *map(A.math.log, ratio), (tries,)).exp()
    h, w = (area*aspect).sqrt().round(), (area/aspect).sqrt().round()
    fits = (h <= H - spare) & (w <= W - spare)
    first = fits.int().argmax(1, keepdim=True)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    return uniform(x, 0, H + 1 - h).floor(), uniform(x, 0, W + 1 - w).floor(), h, w, fits.any(1)

def draw_crop(self, x): return boxes(x, self.scale, self.ratio)
def draw_erasing(self, x):
    *box, fits = boxes(x, self.scale, self.ratio, spare=1)
    return *box, fits & (uniform(x, 0, 1) < self.p)

draws = {A.RandomFlip: draw_flip, A.RandomSharpen: draw_sharpen, A.RandomJitter: draw_jitter, A.BatchResizedCrop: draw_crop, A.BatchErasing: draw_erasing}
applies = {A.RandomJitter: staticmethod(jitter), A.BatchResizedCrop: staticmethod(enlarge), A.RandAugment: lambda self, *args: rand_augment(*args),
           A.BatchRotation: lambda self, x, angle: turn(x, angle, self.mode, self.pad)}

# ---- the plain functions: the step

@contextmanager
def plain_gradients(self):
    "Let autograd add the gradients to those of the chunks."
    for c in self.active:
        for p, g in zip(c.params, views(c.grad, c.params)): p.grad = g
    try: yield
    finally:
        for c in self.active:
            for p in c.params: p.grad = None

def plain_step(self):
    for c in self.active: c.grad.zero_()
    x, y = self.batch()
    pred = self.learn.model(x)
    loss = self.backward(pred, y)
    self.update()
    self.note(loss, pred.detach(), y)
    self.last = x, y, pred.detach(), loss

@torch.no_grad()
def plain_note(self, loss, pred, y):
    here = torch.arange(self.n, device=loss.device)[:, None] == self.pos
    torch.where(here, loss, self.losses, out=self.losses)
    self.hits.add_((pred.argmax(-1) == y).sum(-1))
    self.pos.add_(1)

def plainly(monkeypatch):
    "Let a step be done by the plain functions."
    for cls, f in draws.items(): monkeypatch.setattr(cls, 'draw', f)
    for cls, f in applies.items(): monkeypatch.setattr(cls, 'apply', f)
    for k, f in dict(__call__=plain_step, gradients=plain_gradients, note=plain_note).items(): monkeypatch.setattr(Step, k, f)

# ---- images

sizes = [(28, 28), (32, 32), (33, 33), (64, 64), (96, 96), (50, 41)]
formats = [torch.contiguous_format, torch.channels_last]

@pytest.fixture(params=[(s, f) for s in sizes for f in formats], ids=lambda p: f'{p[0][0]}x{p[0][1]}-{str(p[1])[6:]}')
def images(request):
    (h, w), form = request.param
    seed_everything(h)
    return (torch.randint(0, 256, (130, 3, h, w), dtype=torch.uint8).float()/255).contiguous(memory_format=form)

def same(a, b): return torch.equal(a, b) and a.stride() == b.stride()

@pytest.mark.parametrize('limits', [(.2, .2, .2), (.1, .2, .9)])
def test_jittered_images(images, limits):
    params = A.RandomJitter(*limits).draw(images)
    assert same(A.jitter_each(images, *params), jitter(images, *params))

@pytest.mark.parametrize('pad', ['zeros', 'border', 'reflection'])
@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_turned_images(images, mode, pad):
    tfm = A.BatchRotation(40, mode, pad)
    angle, = tfm.draw(images)
    angle[:3] = torch.tensor([0., 40., -40.])
    assert same(tfm.apply(images, angle), turn(images, angle, mode, pad))

def test_enlarged_images(images):
    params = A.BatchResizedCrop().draw(images)
    assert same(A.enlarge_each(images, *params), enlarge(images, *params))

@pytest.mark.parametrize('n_ops, magnitude', [(2, 5), (1, 9), (3, 30)])
def test_images_after_randaugment(images, n_ops, magnitude):
    tfm = A.RandAugment(n_ops, magnitude)
    ops, levels = tfm.draw(images)
    ops[:len(RAND_OPS), 0] = torch.arange(len(RAND_OPS)) # each at least once
    assert same(tfm.apply(images, ops, levels), rand_augment(images, ops, levels))
    assert same(A.rand_op(images, ops[:, 0], levels[:, 0]), one_op(images, ops[:, 0], levels[:, 0]))

made = [A.RandomFlip(), A.RandomFlip(.1), A.RandomJitter(.2, .2, .2), A.RandomJitter(.1, .1, .1), A.RandomJitter(.1, .2, .3), A.RandomSharpen(2, .1),
        A.BatchErasing(), A.BatchResizedCrop((.35, 1))]

@pytest.mark.parametrize('tfm', made, ids=lambda t: f'{type(t).__name__}{[*t.settings.values()]}')
def test_drawn_numbers_and_the_generator_after_them(tfm):
    x, drawn_by = torch.empty(1).expand(4000, 3, 32, 32), []
    for f in (type(tfm).draw, draws[type(tfm)]):
        torch.manual_seed(3)
        drawn_by.append([*f(tfm, x), torch.get_rng_state()])
    for a, b in zip(*drawn_by, strict=True): assert torch.equal(a, b) and a.dtype == b.dtype

# ---- trainings

base = dict(dataset='digits', model='lenet5', precision='bf16', subset=112, bs=32, size=32, epochs=1)
loaded = {}

def learner_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, loaded[part_of(run)]))

def step_of(options, members=0, change=lambda learn: None):
    "A step before its epoch, of one training or of a stack."
    runs = [create_run(**base | options | dict(seed=s)) for s in range(members or 1)]
    learn = stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs]) if members else learner_of(runs[0])
    change(learn)
    learn.epoch, learn.n_epoch = 0, 1
    learn.create_opt()
    learn.opt.set_hypers(lr=.003)
    if members: learn.add_cb(StackedSchedules([r.recipe for r in runs])).stacked_schedules.before_epoch()
    learn.model.train()
    step = (StackedStep if members else Step)(learn)
    step.begin()
    return step

def after_epoch(options, members, change=lambda learn: None):
    step = step_of(options, members, change)
    with step.gradients():
        for _ in range(step.n): step()
    return [t.detach().clone() for t in step.tensors()] + [torch.get_rng_state()]

cases = [(dict(augment=level), m) for level in augment_levels for m in (0, 3)] + [(o, m) for m in (0, 1, 3) for o in (
    dict(augment='basic', opt='adam'), dict(augment='standard', opt='sgd', nesterov=True, lr=.01), dict(clip=.1), dict(model='cnn3', size=28, dropout=.2))]
cases += [(dict(model='vit'), 0), (dict(model='resnet9', augment='standard'), 0), (dict(model='convnext', layer_decay=.7), 0)]

@pytest.mark.parametrize('options, members', cases, ids=str)
def test_weights_moments_and_losses_after_an_epoch(options, members, monkeypatch):
    new = after_epoch(options, members)
    plainly(monkeypatch)
    for a, b in zip(new, after_epoch(options, members), strict=True): assert torch.equal(a, b) and a.isfinite().all()


def test_what_a_step_finds_and_leaves(monkeypatch):
    "A gradient that somebody left does not count, and none stays behind, whatever happens within a step."
    step = step_of({})
    params = [p for c in step.active for p in c.params]
    for p in params: p.grad = torch.ones_like(p)
    step()
    assert all(p.grad is None for p in params)
    other = step_of({})
    other()
    assert all(torch.equal(a, b) for a, b in zip(step.tensors(), other.tensors(), strict=True))
    monkeypatch.setattr(step, 'backward', lambda pred, y: (pred.sum().backward(), 1/0))
    with pytest.raises(ZeroDivisionError), step.gradients(): step()
    assert all(p.grad is None for p in params)


class Odd(torch.nn.Module):
    "Its gradients come in another memory order, expanded, as views, twice, or not at all."
    def __init__(self):
        super().__init__()
        shapes = dict(turned=(3, 5), summed=(4, 2), number=(), twice=(2, 3), a=(6,), b=(6,), unused=(2, 2), narrow=(1, 4, 1, 1))
        for k, shape in shapes.items(): self.register_parameter(k, torch.nn.Parameter(torch.randn(shape)))
        self.conv = torch.nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    def forward(self, x): # [n, 5]
        out = (x @ self.turned.T).square().sum() + self.summed.sum()*self.number + (self.twice @ self.twice.T).sum()
        out = out + (self.a + self.b.view(2, 3).flatten()).square().sum() + self.narrow.expand(2, 4, 3, 1).square().sum()
        return out + (self.conv.flatten(2).transpose(0, 1).contiguous()*torch.arange(48.).view(3, 4, 4)).square().sum()

@pytest.mark.parametrize('keep', ['all', 'conv', 'unused', 'number', 'summed'])
def test_gradients_of_every_layout_come_to_their_place(keep):
    "Of all parameters as one tensor, and of one alone."
    seed_everything(1)
    net, x = Odd(), torch.randn(7, 5)
    params = [p for k, p in net.named_parameters() if keep in ('all', k)]
    for p in net.parameters(): p.requires_grad_(any(p is q for q in params))
    strides = [p.stride() for p in params]
    chunk = Chunk(params, flat := join(params), 0., grad=torch.full_like(flat, torch.nan))
    step = Step.__new__(Step)
    step.active = [chunk]
    want = torch.autograd.grad(net(x), params, allow_unused=True) if keep != 'unused' else [None]
    if keep != 'unused': net(x).backward()
    step._collect()
    for p, g, w, s in zip(params, views(chunk.grad, params), want, strides, strict=True):
        assert torch.equal(g, torch.zeros_like(p) if w is None else w) and p.stride() == s and p.grad is None


@pytest.mark.parametrize('members', [1, 3])
def test_the_gradient_of_a_stack_has_a_row_for_each_member(members):
    step = step_of({}, members)
    step()
    chunk, = step.active
    assert chunk.grad.shape == chunk.weights.shape == (members, chunk.grad[0].numel()) and (chunk.grad.abs().sum(1) > 0).all()


def with_unused(learn): learn.model.register_parameter('unused', torch.nn.Parameter(torch.ones(3, 2)))
def frozen(learn): learn.freeze()

@pytest.mark.parametrize('change', [with_unused, frozen])
@pytest.mark.parametrize('options', [dict(), dict(opt='sgd', nesterov=True, lr=.01, clip=.5), dict(ema=.9)], ids=str)
def test_weights_without_a_gradient(change, options, monkeypatch):
    new = after_epoch(options, 0, change)
    plainly(monkeypatch)
    for a, b in zip(new, after_epoch(options, 0, change), strict=True): assert torch.equal(a, b)


class Objects(Callback):
    "From the second epoch on, no epoch can be done by a step."
    def before_epoch(self):
        if self.epoch == 1: self.learn.add_cb(type('Looks', (Callback,), dict(after_batch=lambda self: None))())

@pytest.mark.parametrize('options', [dict(), dict(opt='sgd', lr=.01, clip=.5), dict(precision='fp16'), dict(ema=.9)], ids=str)
def test_fastais_loop_goes_on_after_steps(options, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    def ended():
        learn = learner_of(run := create_run(**base | dict(epochs=3) | options))
        fit(learn, run.recipe, lines=1, cbs=[Objects()])
        assert learn.layout['not_captured'] == 'looks acts on each batch'
        return learn.model.state_dict()
    new = ended()
    plainly(monkeypatch)
    for a, b in zip(new.values(), ended().values(), strict=True): assert torch.equal(a, b)


# ---- fewer operations

class Operations(TorchDispatchMode):
    "Counts the operations that write something. Keeps no tensor: autograd copies a gradient that somebody else has, too."
    def __init__(self): super().__init__(); self.n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        new = places(tensors(out)) - places(tensors(args, kwargs or {}))
        self.n += func._schema.is_mutable or bool(new) and 'empty' not in func._schema.name
        return out

@pytest.mark.parametrize('options, members, spared', [
    (dict(augment='none'), 0, 11), (dict(model='cnn3', augment='none'), 0, 13), (dict(model='vit', augment='none'), 0, 81),
    (dict(model='convnext', augment='none'), 0, 93), (dict(augment='basic'), 0, 45), (dict(augment='standard'), 0, 90),
    (dict(augment='erasing'), 0, 51), (dict(augment='cifar100'), 0, 47), (dict(augment='resized_crop'), 0, 24),
    (dict(augment='none'), 3, 2), (dict(augment='basic'), 3, 36)], ids=str)
def test_a_step_spares_operations(options, members, spared, monkeypatch):
    def counted():
        step = step_of(options, members)
        with step.gradients(), Operations() as ops: step()
        return ops.n
    new = counted()
    plainly(monkeypatch)
    assert counted() - new >= spared


# ---- between epochs

@pytest.fixture
def on_gpu(monkeypatch):
    "A loader that believes to be on a GPU, and what NumPy was asked to shuffle."
    dl, asked = learner_of(create_run(**base)).dls.train, []
    class Spy:
        def __init__(self, seed): self.rng = plain(seed)
        def permutation(self, x): asked.append(x); return self.rng.permutation(x)
    plain = np.random.default_rng
    monkeypatch.setattr(np.random, 'default_rng', Spy)
    dl.device = torch.device('meta') # any other than a CPU
    return dl, asked, plain

@pytest.mark.parametrize('n', [0, 1, 2, 1000, 50_000])
def test_the_order_of_an_epoch_needs_no_list(n, on_gpu):
    dl, asked, plain = on_gpu
    dl.n = n
    state = dl.rng.getstate()
    order, after = dl.get_idxs(), dl.rng.getstate()
    dl.rng.setstate(state)
    want = plain(dl.rng.getrandbits(64)).permutation(list(range(n)))
    assert asked == [n] and (order == want).all() and dl.rng.getstate() == after
    assert order.dtype == np.int64 and sorted(order) == list(range(n))

@pytest.mark.parametrize('idxs', [[3, 1, 2], [0, 1, 2, 3], range(3, 9), range(5, 0, -1), np.arange(4) + 1, range(0, 8, 2)], ids=str)
def test_other_images_are_shuffled_as_they_are(idxs, on_gpu):
    dl, asked, plain = on_gpu
    state = dl.rng.getstate()
    order = dl.shuffle_fn(idxs)
    dl.rng.setstate(state)
    assert (order == plain(dl.rng.getrandbits(64)).permutation(idxs)).all() and sorted(order) == sorted(idxs)

def test_an_order_that_is_not_shuffled_stays(on_gpu):
    dl, asked, _ = on_gpu
    assert list(dl.new(shuffle=False, device=dl.device).get_idxs()) == list(range(dl.n)) and not asked
    on_cpu = learner_of(create_run(**base)).dls.train # fastai shuffles
    assert sorted(on_cpu.get_idxs()) == list(range(dl.n)) and not asked


class Asked:
    "Values on a device that counts how often it is asked for them."
    def __init__(self, values): self.values, self.times = values, 0
    def __getitem__(self, i): return Asked.of(self, self.values[i])
    @staticmethod
    def of(parent, values): new = Asked(values); new.parent = parent; return new
    def _ask(self): (getattr(self, 'parent', None) or self).times += 1
    def tolist(self): self._ask(); return self.values.tolist()
    def item(self): self._ask(); return self.values.item()
    def __int__(self): return int(self.item())

@pytest.mark.parametrize('members', [1, 3, 40])
def test_a_row_for_each_member_is_one_question(members):
    history = StackedHistory([Member(None, create_run(**base).recipe) for _ in range(members)])
    lr, bad = Asked(torch.arange(members)[:, None]/3), Asked(torch.zeros(members, dtype=torch.int64))
    history.learn = SimpleNamespace(epoch=0, n_epoch=1, dls=SimpleNamespace(valid=[1], device='cpu'), model=None, opt=SimpleNamespace(opt=SimpleNamespace(lr=lr)))
    history.before_epoch()
    history.bad = bad
    for part in ('train', 'valid'): history.sums |= {f'{part}_{k}': torch.arange(members) + 1. for k in ('loss', 'right', 'n')}
    history.after_epoch()
    assert (lr.times, bad.times) == (1, 1)
    assert [m.rows[0]['lr'] for m in history.members] == lr.values[:, 0].tolist() and [m.images for m in history.members] == [*range(1, members + 1)]


class Looked:
    "A Learner that counts how often its epoch is looked up."
    n_epoch, times = 4, 0
    dls = SimpleNamespace(train=range(97), device=torch.device('cpu'))
    @property
    def epoch(self): self.times += 1; return 2

@pytest.mark.parametrize('schedules', [['one_cycle'], ['cosine', 'one_cycle', 'cosine'], ['flat', 'step', 'linear', 'exponential']], ids=str)
def test_the_table_of_a_stack(schedules):
    recipes = [create_run(**base | dict(epochs=4, schedule=s, lr=.01*(i//2 + 1), momentum=.8)).recipe for i, s in enumerate(schedules)]
    cb = StackedSchedules(recipes)
    cb.learn = Looked()
    cb.before_epoch()
    frac = lambda i: 2/4 + i/(97*4)
    rows = [[(s['lr'](frac(i))[0], s['mom'](frac(i))) for s in map(create_schedule, recipes)] for i in range(97)]
    assert torch.equal(cb.table, torch.tensor(rows)[..., None]) and cb.table.is_contiguous()
    assert cb.learn.times == 1
