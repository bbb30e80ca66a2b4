"Images with more than 8 bits: one range for a data set. The oracle is the 8-bit picture that each file was made from."
import numpy as np, pytest, json
from PIL import Image
from sklearn.datasets import load_digits
from imgstudy.core import StudyError
from imgstudy.data.images import StudyImage
from imgstudy.data.loaders import create_dls
from imgstudy.data.pixels import get_pixels
from imgstudy.data.split import load_data
from imgstudy.predict import export_model, load_predictor, predict
from imgstudy.records.record import read_record
from imgstudy.runs import make_run, run_from_dict, run_id, run_to_dict
from imgstudy.study.create import create_run
from imgstudy.training.train import train

ramp = np.add.outer(np.linspace(0, 255, 48), np.linspace(0, 255, 48))/2 # an 8-bit picture from 0 to 255
dims = np.linspace(0.3, 1, 12) # pictures of a class, from dark to bright


def write(root, store, ext='tif', n=12):
    "The ramp in several brightnesses and two classes, each stored by `store`; the pictures that they mean."
    want = {}
    for c in 'ab':
        (root/c).mkdir(parents=True)
        for i, k in enumerate(dims[:n]):
            a = ramp*k if c == 'a' else ramp[::-1]*k
            Image.fromarray(store(a)).save(root/c/f'{i}.{ext}')
            want[f'{c}/{i}.{ext}'] = a
    return want


stores = { # name: (pixels of an 8-bit picture -> array, ending, the range)
    '8 bits': (lambda a: a.round().astype(np.uint8), 'png', None),
    '16 bits': (lambda a: (a*257).round().astype(np.uint16), 'png', (0, 65535)),
    '16 bits, TIFF': (lambda a: (a*257).round().astype(np.uint16), 'tif', (0, 65535)),
    '12 of 16': (lambda a: (a/255*4095).round().astype(np.uint16), 'png', (0, 4095)),
    '12 of 16, TIFF': (lambda a: (a/255*4095).round().astype(np.uint16), 'tif', (0, 4095)),
    '14 of 16': (lambda a: (a/255*16383).round().astype(np.uint16), 'png', (0, 16383)),
    '10 of 16': (lambda a: (a/255*1023).round().astype(np.uint16), 'tif', (0, 1023)),
    '0-255 in uint16': (lambda a: a.round().astype(np.uint16), 'png', (0, 255)),
    '0-255 in int32': (lambda a: a.round().astype(np.int32), 'tif', (0, 255)),
    'float 0-255': (lambda a: a.astype(np.float32), 'tif', (0, 255)),
    'float 0-1': (lambda a: (a/255).astype(np.float32), 'tif', (0, 1)),
    'float with overshoot': (lambda a: (a/255*1.06 - .03).astype(np.float32), 'tif', (0, 1)),
    'float 0-65535': (lambda a: (a*257).astype(np.float32), 'tif', (0, 65535)),
    'CT': (lambda a: (a/255*4000 - 1000).round().astype(np.int32), 'tif', (-1000, 3000)),
    'float -1 to 1': (lambda a: (a/127.5 - 1).astype(np.float32), 'tif', (-1, 1)),
    'dim counts': (lambda a: (a/255*120 + 140).round().astype(np.uint16), 'tif', (140, 260)),
    '5 bits': (lambda a: (a/255*31).round().astype(np.uint16), 'png', (0, 31)),
}


@pytest.mark.parametrize('name', stores)
def test_the_picture_that_was_stored_arrives(name, tmp_path, capsys):
    store, ext, image_range = stores[name]
    want = write(tmp_path/'p', store, ext)
    data = load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    said = capsys.readouterr().out
    assert (data.image_range is None) == (image_range is None) == ('hold more than 8 bits' not in said)
    if image_range:
        width = image_range[1] - image_range[0]
        assert np.abs(np.subtract(data.image_range, image_range)).max() <= 0.05*width
    off = 12 if name in ('float with overshoot', '5 bits', 'CT', 'dim counts', 'float -1 to 1') else 1.5
    pixels = get_pixels(data, 48)
    rows = pixels.rows(data.items.path.tolist())
    for path, got in zip(data.items.path, pixels.array()[rows]): assert np.abs(got[..., 0].astype(float) - want[path]).max() <= off, path
    train_pixels = np.stack([want[p] for p in data.of('train').path])/255
    assert abs(data.mean[0] - train_pixels.mean()) < off/255 and abs(data.std[0] - train_pixels.std()) < off/255


def test_a_dark_scene_stays_dark(tmp_path):
    "Alone, its floats up to 1 would be taken for white; among pictures up to 255 they are nearly black."
    write(tmp_path/'p', lambda a: a.astype(np.float32))
    Image.fromarray((ramp/255).astype(np.float32)).save(tmp_path/'p/a/dark.tif')
    data = load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    assert np.asarray(StudyImage.create(tmp_path/'p/a/dark.tif', data.image_range)).max() <= 1
    assert np.asarray(StudyImage.create(tmp_path/'p/a/dark.tif')).max() == 255


@pytest.mark.parametrize('spoil', ['hot pixels', 'one over-exposed', 'one dead', 'NaN'])
def test_a_few_outliers_change_nothing(spoil, tmp_path):
    write(tmp_path/'p', stores['float 0-255' if spoil == 'NaN' else '12 of 16'][0])
    for i in range(12 if spoil in ('hot pixels', 'NaN') else 1):
        path = tmp_path/f'p/a/{i}.tif'
        a = np.asarray(Image.open(path)).copy()
        if spoil == 'NaN': a[3, 3] = np.nan
        elif spoil == 'hot pixels': a[3, 3] = 65535
        else: a[:] = 65535 if spoil == 'one over-exposed' else 0
        Image.fromarray(a).save(path)
    assert load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5')).image_range == (0, 255 if spoil == 'NaN' else 4095)


def test_the_test_images_do_not_decide(tmp_path):
    for split, top in dict(train=1000, valid=1000, test=60000).items(): write(tmp_path/'p'/split, lambda a: (a/255*top).astype(np.uint16))
    assert load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5')).image_range == (0, 1023)


def test_floats_and_whole_numbers_of_different_scales_are_refused(tmp_path):
    write(tmp_path/'p', lambda a: (a/255).astype(np.float32))
    for i in range(12): Image.fromarray((ramp*16).astype(np.uint16)).save(tmp_path/f'p/b/{i}.tif')
    with pytest.raises(StudyError, match=r'floats from 0 to 1, others whole numbers from 0 to 4095.*image_range='):
        load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))


def test_a_range_of_one_s_own(tmp_path, capsys):
    write(tmp_path/'p', stores['12 of 16'][0])
    run = make_run(dataset=f'folder:{tmp_path}/p', model='lenet5', image_range=[0, 8190])
    assert load_data(run).image_range == (0, 8190) and '8190 is white, as given' in capsys.readouterr().out
    assert run_from_dict(json.loads(json.dumps(run_to_dict(run)))) == run
    found = make_run(dataset=f'folder:{tmp_path}/p', model='lenet5')
    assert load_data(run).mean[0] < 0.6*load_data(found).mean[0] and run_id(run) != run_id(found)


def test_8_bits_are_as_ever(tmp_path, capsys):
    "No range, the same key of the pixel cache, and a range that is given changes nothing."
    write(tmp_path/'p', stores['8 bits'][0], 'png')
    plain, given = (load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5', image_range=r)) for r in (None, (0, 10)))
    assert plain.image_range is given.image_range is None and plain.mean == given.mean
    assert get_pixels(plain, 32).folder == get_pixels(given, 32).folder
    assert 'image_range changes nothing' in capsys.readouterr().out


def test_the_range_is_part_of_the_key_of_the_pixels(tmp_path):
    write(tmp_path/'p', stores['12 of 16'][0])
    folders = {get_pixels(load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5', image_range=r)), 32).folder
               for r in (None, (0, 4095), (0, 4000))}
    assert len(folders) == 2 # the first two are the same


def test_one_range_from_training_to_prediction_and_export(tmp_path, runs_dir):
    "Digits in 12 bits of 16: a record, predictions of files, images and arrays, and the description of an export."
    x = load_digits()
    for i in np.random.default_rng(0).permutation(len(x.images))[:300]:
        (tmp_path/'p'/str(x.target[i])).mkdir(parents=True, exist_ok=True)
        Image.fromarray((x.images[i]/16*4095).round().astype(np.uint16)).save(tmp_path/f'p/{x.target[i]}/{i}.png')
    run = create_run(dataset=f'folder:{tmp_path}/p', model='lenet_modern', epochs=5, lr=2e-3, size=32, augment='none')
    record = read_record(train(run).path)
    assert record.info['data']['image_range'] == [0, 4095] and record.metrics['accuracy'] > 0.75
    assert load_predictor(record).image_range == (0, 4095)
    data = load_data(run)
    paths = [data.root/p for p in data.of('test').path]
    table = predict(paths, record)
    p = record.predictions
    assert (table.predicted.to_numpy() == np.asarray(data.classes)[p['pred'] if 'pred' in p else p['probs'].argmax(1)]).all()
    one = Image.open(paths[0])
    assert np.allclose(predict([one, np.asarray(one)], record).probability, table.probability[0], atol=1e-5)
    said = export_model(record, tmp_path/'m.pt2', paths[:4])
    assert said['image_range'] == [0, 4095] and json.loads((tmp_path/'m.pt2.json').read_text()) == said
    xb = next(iter(create_dls(run, data).valid))[0]
    assert xb.std() > 0.5


def test_dim_pictures_are_learnt(tmp_path, runs_dir):
    "Stripes across or along, 60 counts on 200 in 16 bits, as a camera gives them: easy for a linear model on the counts."
    rng = np.random.default_rng(0)
    for i in range(160):
        s = 30*np.sin(np.arange(32)*0.8 + rng.uniform(0, .5))
        a = 200 + (s[:, None] if i % 2 else s[None, :]) + rng.normal(0, 5, (32, 32))
        (tmp_path/'p'/'ab'[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(a.clip(0).round().astype(np.uint16)).save(tmp_path/f'p/{"ab"[i % 2]}/{i}.tif')
    record = train(create_run(dataset=f'folder:{tmp_path}/p', model='lenet_modern', epochs=4, size=32, augment='none'))
    assert record.metrics['accuracy'] > 0.9 and 0.3 < record.info['data']['mean'][0] < 0.7


def test_an_audit_sees_what_a_run_sees(tmp_path):
    from imgstudy.data.audit import audit_data, oddities_table
    write(tmp_path/'p', stores['12 of 16'][0])
    audit, data = audit_data(f'folder:{tmp_path}/p'), load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    assert audit.image_range == data.image_range == (0, 4095) and abs(audit.items.r.mean() - data.items.r.mean()) < 1e-6
    assert not oddities_table(audit).reason.str.contains('contrast').any()
