"Colours with 16 bits, of which Pillow alone keeps the upper eight. The oracle is the array that was written, by a writer of our own."
import io, struct, zlib
import numpy as np, pytest
from PIL import Image
from imgstudy.data.images import StudyImage, check_image, deep_values, open_upright
from imgstudy.data.pixels import get_pixels
from imgstudy.data.split import load_data
from imgstudy.predict import open_image
from imgstudy.runs import make_run


def png(a, orientation=None): # uint16 [h, w, 3 or 4]
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    head = struct.pack('>IIBBBBB', a.shape[1], a.shape[0], 16, {3: 2, 4: 6}[a.shape[2]], 0, 0, 0)
    rows = np.frombuffer(a.astype('>u2').tobytes(), np.uint8).reshape(len(a), -1)
    before = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    up = b''.join(b'\2' + (r - b).astype(np.uint8).tobytes() for r, b in zip(rows, before)) # filtered, as encoders do
    exif = chunk(b'eXIf', b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x112, 3, 1, orientation, 0, 0)) if orientation else b''
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + exif + chunk(b'IDAT', zlib.compress(up)) + chunk(b'IEND', b'')


def tiff(a, order='<', packed=False):
    h, w, n = a.shape
    data = a.astype(f'{order}u2').tobytes()
    if packed: data = zlib.compress(data)
    entry = lambda tag, kind, count, value: struct.pack(f'{order}HHI', tag, kind, count) + (struct.pack(f'{order}HH', value, 0) if kind == 3 else struct.pack(f'{order}I', value))
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, n, None), (259, 3, 1, 8 if packed else 1), (262, 3, 1, 2), (273, 4, 1, None), (277, 3, 1, n),
            (278, 4, 1, h), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    at = 8 + 2 + 12*len(tags) + 4
    body = b''.join(struct.pack(f'{order}HHII', t, k, c, at) if t == 258 else entry(t, k, c, at + 2*n if t == 273 else v) for t, k, c, v in tags)
    return (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}IH', 8, len(tags)) + body + struct.pack(f'{order}I', 0) + struct.pack(f'{order}{n}H', *[16]*n) + data


rng = np.random.default_rng(0)
ways = {'png': png, 'little.tif': tiff, 'big.tif': lambda a: tiff(a, '>'), 'packed.tif': lambda a: tiff(a, packed=True), 'packed big.tif': lambda a: tiff(a, '>', True)}


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('top', [255, 4095, 65535])
def test_every_value_arrives(way, top, tmp_path):
    a = rng.integers(0, top + 1, (13, 17, 3)).astype(np.uint16)
    (tmp_path/f'a.{way}').write_bytes(ways[way](a))
    assert (deep_values(open_upright(tmp_path/f'a.{way}')) == a).all()
    got = np.asarray(StudyImage.create(tmp_path/f'a.{way}', (0, top)))
    assert np.abs(got - a*(255/top)).max() <= .5 and (np.asarray(open_image(tmp_path/f'a.{way}', (0, top))) == got).all()
    assert check_image(tmp_path/f'a.{way}')['mode'] == 'I;16 RGB'


def test_transparent_ones_lie_on_white(tmp_path):
    a = np.concatenate([rng.integers(0, 4096, (6, 8, 3)), np.zeros((6, 8, 1), int)], 2).astype(np.uint16)
    a[:3, :, 3] = 65535
    (tmp_path/'a.png').write_bytes(png(a))
    got = np.asarray(StudyImage.create(tmp_path/'a.png', (0, 4095)))
    assert np.abs(got[:3] - a[:3, :, :3]*(255/4095)).max() <= 1 and (got[3:] == 255).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_both_bytes_are_turned(orientation, tmp_path):
    a = rng.integers(0, 65536, (5, 9, 3)).astype(np.uint16)
    (tmp_path/'a.png').write_bytes(png(a, orientation))
    turned = {2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2), 6: a.transpose(1, 0, 2)[:, ::-1], 7: a.transpose(1, 0, 2)[::-1, ::-1], 8: a.transpose(1, 0, 2)[::-1]}
    assert (deep_values(open_upright(tmp_path/'a.png')) == turned.get(orientation, a)).all()


@pytest.mark.parametrize('top', [255, 1023, 4095, 65535])
def test_one_range_for_a_folder_of_them(top, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    want = {}
    for c in 'ab':
        (tmp_path/'p'/c).mkdir(parents=True)
        for i in range(10):
            a = (np.linspace(0, top, 32*32*3).reshape(32, 32, 3)*(.4 + .06*i)).round().astype(np.uint16)[::1 if c == 'a' else -1]
            (tmp_path/'p'/c/f'{i}.png').write_bytes(png(a))
            want[f'{c}/{i}.png'] = a*(255/top)
    data = load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    assert data.image_range == (0, top) and '20 of 20 images hold more than 8 bits' in capsys.readouterr().out
    pixels = get_pixels(data, 32)
    for path, got in zip(data.items.path, pixels.array()[pixels.rows(data.items.path.tolist())]): assert np.abs(got.astype(float) - want[path]).max() <= 1


@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b[:200], lambda b: b[:100] + bytes(900) + b[1000:]])
def test_damaged_ones_are_named(damage, tmp_path):
    a = rng.integers(0, 4096, (40, 40, 3)).astype(np.uint16)
    (tmp_path/'a.png').write_bytes(damage(png(a)))
    assert check_image(tmp_path/'a.png')['error']


@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'CMYK', 'RGBA'])
def test_8_bits_are_read_as_ever(mode, tmp_path):
    im = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).convert(mode)
    im.save(buf := io.BytesIO(), 'TIFF')
    assert 'lower_bytes' not in open_upright(buf).info


def la_png(a): # uint16 [h, w, 2]: grey and alpha
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    rows = np.frombuffer(a.astype('>u2').tobytes(), np.uint8).reshape(len(a), -1)
    left = np.pad(rows, ((0, 0), (4, 0)))[:, :-4]
    sub = b''.join(b'\1' + (r - l).astype(np.uint8).tobytes() for r, l in zip(rows, left))
    head = struct.pack('>IIBBBBB', a.shape[1], a.shape[0], 16, 4, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(sub)) + chunk(b'IEND', b'')


def any_tiff(a, order='<', packed=False, orientation=1, lzw=False):
    "One strip of the numbers `a`, [h, w, n], in the type that they have."
    h, w, n = a.shape
    data = a.astype(a.dtype.newbyteorder(order)).tobytes()
    if packed: data = zlib.compress(data)
    if lzw: # by Pillow, as an image of bytes
        Image.frombytes('L', (w*n*a.dtype.itemsize, h), data).save(buf := io.BytesIO(), 'TIFF', compression='tiff_lzw')
        with Image.open(buf) as im: at, length = im.tag_v2[273], im.tag_v2[279]
        data = b''.join(buf.getvalue()[x:x + y] for x, y in zip(at, length)) if len(at) == 1 else None
    tags = {256: [w], 257: [h], 258: [8*a.dtype.itemsize]*n, 259: [5 if lzw else 8 if packed else 1], 262: [2 if n > 2 else 1], 273: [8], 274: [orientation], 277: [n], 278: [h],
            279: [len(data)], 284: [1], 339: [{'u': 1, 'i': 2, 'f': 3}[a.dtype.kind]]*n} | ({338: [2]} if n in (2, 4) else {})
    at, body, values = 8 + len(data) + len(data)%2, b'', b''
    end = at + 2 + 12*len(tags) + 4
    for tag, v in sorted(tags.items()):
        kind = 4 if tag in (256, 257, 273, 278, 279) else 3
        put = struct.pack(f'{order}{len(v)}{"I" if kind == 4 else "H"}', *v)
        body += struct.pack(f'{order}HHI', tag, kind, len(v)) + (put.ljust(4, b'\0') if len(put) <= 4 else struct.pack(f'{order}I', end + len(values)))
        if len(put) > 4: values += put + bytes(len(put)%2)
    return (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}I', at) + data + bytes(len(data)%2) + struct.pack(f'{order}H', len(tags)) + body + bytes(4) + values


@pytest.mark.parametrize('top', [255, 4095, 65535])
def test_grey_with_transparency_keeps_16_bits(top, tmp_path):
    a = np.stack([rng.integers(0, top + 1, (7, 9)), rng.integers(0, 65536, (7, 9))], 2).astype(np.uint16)
    a[:3, :, 1] = 65535
    for name, data in {'a.png': la_png(a), 'a.tif': any_tiff(a)}.items():
        (tmp_path/name).write_bytes(data)
        im = open_upright(tmp_path/name)
        assert (deep_values(im) == a[..., :1]).all() and np.abs(np.asarray(im.getchannel('A')) - a[..., 1]/257).max() <= 1
        got = np.asarray(StudyImage.create(tmp_path/name, (0, top)))
        assert np.abs(got[:3] - a[:3, :, :1]*(255/top)).max() <= .5


@pytest.mark.parametrize('way', ['P6', 'P3', 'P6 with comments'])
@pytest.mark.parametrize('white', [1023, 4095, 65535])
def test_a_ppm_keeps_its_range(way, white, tmp_path):
    a = rng.integers(0, white + 1, (5, 8, 3))
    head = f'{way[:2]}\n' + '# of a camera\n'*('comments' in way) + f'8 5\n{white}\n'
    (tmp_path/'a.ppm').write_bytes(head.encode() + (a.astype('>u2').tobytes() if way[1] == '6' else ' '.join(map(str, a.ravel())).encode()))
    assert np.abs(deep_values(open_upright(tmp_path/'a.ppm')) - a*(65535/white)).max() <= .5 # as Pillow reads a grey one
    assert check_image(tmp_path/'a.ppm')['mode'] == 'I RGB'
    (tmp_path/'a.ppm').write_bytes((tmp_path/'a.ppm').read_bytes()[:-40])
    assert check_image(tmp_path/'a.ppm')['error'] and 'no image' not in check_image(tmp_path/'a.ppm')['error']


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8', 'u4', 'i4', 'i2'])
@pytest.mark.parametrize('n', [1, 2, 3, 4])
@pytest.mark.parametrize('how', [{}, dict(order='>'), dict(packed=True), dict(lzw=True)], ids=str)
def test_tiffs_of_programs_are_read(dtype, n, how, tmp_path):
    a = (rng.normal(0, 3000, (6, 7, n)) if dtype[0] != 'u' else rng.integers(0, 4096, (6, 7, n))).astype(dtype)
    if n in (2, 4): a[..., -1] = np.iinfo(dtype).max if dtype[0] != 'f' else 1
    (tmp_path/'a.tif').write_bytes(any_tiff(a, **how))
    want = (a[..., :3] if n > 2 else a[..., 0]).astype(np.float32)
    got = deep_values(open_upright(tmp_path/'a.tif'))
    assert (got == (want[..., None] if n == 2 else want)).all() and check_image(tmp_path/'a.tif')['error'] is None
    low, high = float(want.min()), float(want.max())
    shown = np.asarray(StudyImage.create(tmp_path/'a.tif', (low, high)))
    assert np.abs(shown - ((want if n > 2 else want[..., None]) - low)*(255/(high - low))).max() <= .51


@pytest.mark.parametrize('orientation', [3, 6, 8])
@pytest.mark.parametrize('n', [1, 3, 4])
def test_floats_are_turned(orientation, n, tmp_path):
    a = rng.random((4, 6, n)).astype(np.float64)
    (tmp_path/'a.tif').write_bytes(any_tiff(a, orientation=orientation))
    turned = {3: a[::-1, ::-1], 6: a.transpose(1, 0, 2)[:, ::-1], 8: a.transpose(1, 0, 2)[::-1]}[orientation].astype(np.float32)
    assert (deep_values(open_upright(tmp_path/'a.tif')) == (turned[..., :3] if n > 1 else turned[..., 0])).all()


def test_a_folder_of_float_colours(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    for c in 'ab':
        (tmp_path/'p'/c).mkdir(parents=True)
        for i in range(8):
            a = np.linspace(-1000, 3000, 16*16*3).reshape(16, 16, 3)*(1 if c == 'a' else .9)
            if i < 4: (tmp_path/'p'/c/f'{i}.tif').write_bytes(any_tiff(a.astype('f4')))
            else: (tmp_path/'p'/c/f'{i}.pfm').write_bytes(b'PF\n16 16\n-1.0\n' + a[::-1].astype('<f4').tobytes())
    data = load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    assert not data.skipped and data.image_range == (-1000, 3000)
    for damaged in (b'II*\0' + struct.pack('<I', 8) + b'\xff\xff' + bytes(90), any_tiff(a.astype('f4'))[:-300], b'PF\n999 999\n-1.0\n' + bytes(90)):
        (tmp_path/'x.tif').write_bytes(damaged)
        assert check_image(tmp_path/'x.tif')['error']


def tiled_tiff(a, tile, predictor, big):
    "The numbers `a`, [h, w, n], in packed tiles, of which the last ones are filled up; `big`: a BigTIFF."
    h, w, n = a.shape
    full, parts = np.pad(a, ((0, -h%tile), (0, -w%tile), (0, 0))), []
    for i, j in ((i, j) for i in range(0, h, tile) for j in range(0, w, tile)):
        t = full[i:i + tile, j:j + tile]
        if predictor == 2: t = np.diff(t, axis=1, prepend=np.zeros_like(t[:, :1])).astype(a.dtype)
        if predictor == 3:
            b = t.astype(a.dtype.newbyteorder('>')).reshape(tile, -1).view(np.uint8).reshape(tile, -1, a.itemsize).transpose(0, 2, 1).reshape(tile, -1, n)
            t = np.diff(b, axis=1, prepend=np.zeros_like(b[:, :1])).astype(np.uint8)
        parts.append(zlib.compress(t.tobytes()))
    start = 16 if big else 8
    at = [*map(int, start + np.cumsum([0, *map(len, parts)]))]
    tags = {256: [w], 257: [h], 258: [8*a.itemsize]*n, 259: [8], 262: [2 if n > 2 else 1], 277: [n], 284: [1], 317: [predictor], 322: [tile], 323: [tile],
            324: at[:-1], 325: [*map(len, parts)], 339: [dict(u=1, i=2, f=3)[a.dtype.kind]]*n}
    place, width, kind = ('Q', 8, 16) if big else ('I', 4, 4)
    end, body, values = at[-1] + (8 if big else 2) + len(tags)*(4 + 2*width) + width, b'', b''
    for tag, v in sorted(tags.items()):
        put = struct.pack(f'<{len(v)}{place}', *v)
        body += struct.pack(f'<HH{place}', tag, kind, len(v)) + (put if len(v) == 1 else struct.pack(f'<{place}', end + len(values)))
        if len(v) > 1: values += put
    head = b'II+\0' + struct.pack('<HHQ', 8, 0, at[-1]) if big else b'II*\0' + struct.pack('<I', at[-1])
    return head + b''.join(parts) + struct.pack('<Q' if big else '<H', len(tags)) + body + bytes(width) + values


@pytest.mark.parametrize('dtype', ['f4', 'f2', 'u4', 'i2'])
@pytest.mark.parametrize('n', [1, 3])
@pytest.mark.parametrize('big', [False, True], ids=['classic', 'big'])
@pytest.mark.parametrize('predicted', [False, True], ids=['plain', 'predicted'])
def test_tiles_and_large_files_of_microscopes(dtype, n, big, predicted, tmp_path):
    a = (rng.normal(0, 300, (21, 37, n)) if dtype[0] != 'u' else rng.integers(0, 4096, (21, 37, n))).astype(dtype)
    (tmp_path/'a.tif').write_bytes(tiled_tiff(a, 16, (3 if dtype[0] == 'f' else 2) if predicted else 1, big))
    assert check_image(tmp_path/'a.tif')['error'] is None
    assert (deep_values(open_upright(tmp_path/'a.tif')) == (a if n > 1 else a[..., 0]).astype(np.float32)).all()
