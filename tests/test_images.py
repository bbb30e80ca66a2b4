"Files as people have them: damaged metadata, telephones' formats, files that are no images, damaged images."
import io, struct, sys, zlib
from pathlib import Path
import numpy as np, pytest
from PIL import Image, ImageOps
from imgstudy.core import StudyError
from imgstudy.data.images import StudyImage, check_image, check_images, is_image, listing_key, no_image, open_upright
from imgstudy.data.split import load_data
from imgstudy.runs import make_run

y, x = np.mgrid[0:32, 0:48]
array = np.stack([x*5, y*8, 255 - x*5], -1).astype(np.uint8) # no two of its eight ways up are alike
picture = Image.fromarray(array)
turned = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)) # orientation 6


def saved(ext, **kwargs):
    picture.save(buf := io.BytesIO(), ext, **kwargs)
    return buf.getvalue()


def tiff(*entries, extra=b'', order='<'):
    "The first directory of an EXIF block: tag, type, count, value."
    head = {'<': b'II*\0', '>': b'MM\0*'}[order] + struct.pack(f'{order}IH', 8, len(entries))
    return head + b''.join(struct.pack(f'{order}HHI', *e[:3]) + e[3] for e in entries) + bytes(4) + extra


def with_segment(payload, marker=b'\xff\xe1'):
    "A JPEG with `payload` as its first segment."
    data = saved('jpeg', quality=95)
    return data[:2] + marker + struct.pack('>H', len(payload) + 2) + payload + data[2:]


def with_chunk(kind, payload, crc=None, data=None):
    "A PNG with a chunk before its pixels."
    data = data or saved('png')
    at = data.index(b'IDAT') - 4
    crc = zlib.crc32(kind + payload) if crc is None else crc
    return data[:at] + struct.pack('>I', len(payload)) + kind + payload + struct.pack('>I', crc) + data[at:]


lying = 0x0112, 3, 1, struct.pack('<HH', 6, 0)
where = struct.pack('<I', 8 + 2 + 24 + 4) # behind two entries
odd_exif = {
    'resolution in letters': tiff(lying, (0x011a, 2, 4, b'72\0\0')),
    'width is a rational': tiff(lying, (0x0100, 5, 1, where), extra=struct.pack('<II', 60, 1)),
    'thumbnail offset of bytes': tiff(lying, (0x0201, 7, 4, b'abcd')),
    'signed rational -1/0': tiff(lying, (0x9204, 10, 1, where), extra=struct.pack('<ii', -1, 0)),
    'rational 0/0': tiff(lying, (0x829a, 5, 1, where), extra=struct.pack('<II', 0, 0)),
    'comment outside the block': tiff(lying, (0x9286, 7, 400, struct.pack('<I', 60000))),
    'height in letters': tiff(lying, (0x0101, 2, 3, b'32\0\0')),
    'bits as floats': tiff(lying, (0x0102, 11, 1, struct.pack('<f', 8.))),
    'strip offsets in letters': tiff(lying, (0x0111, 2, 4, b'far\0')),
    'big-endian, x resolution of bytes': tiff((0x0112, 3, 1, struct.pack('>HH', 6, 0)), (0x011a, 7, 3, b'abc\0'), order='>'),
}


@pytest.mark.parametrize('name', odd_exif)
def test_an_orientation_beside_damaged_tags_counts(name, tmp_path):
    data = with_segment(b'Exif\0\0' + odd_exif[name])
    (tmp_path/'a.jpg').write_bytes(data)
    plain = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')) # as torchvision's ImageFolder opens it
    assert check_image(tmp_path/'a.jpg')['error'] is None
    assert (np.asarray(StudyImage.create(tmp_path/'a.jpg')) == np.rot90(plain, -1)).all()


@pytest.mark.parametrize('exif', [b'Exif\0\0', b'Exif\0\0\0\x08\0\x02garbage....', b'Exif\0\0' + tiff(lying)[:12], b'Exif\0\0MM\0*\xff\xff\xff\xff',
                                  b'Exif\0\0' + tiff((0x0112, 2, 2, b'6\0\0\0')), b'Exif\0\0' + tiff((0x0112, 3, 1, struct.pack('<HH', 77, 0)))])
def test_metadata_without_a_readable_orientation_turn_nothing(exif, tmp_path):
    (tmp_path/'a.jpg').write_bytes(with_segment(exif))
    assert (np.asarray(StudyImage.create(tmp_path/'a.jpg')) == np.asarray(Image.open(io.BytesIO(saved('jpeg', quality=95))))).all()


odd_png = {
    'eXIf of nonsense': with_chunk(b'eXIf', b'\0\x08\0\x02\x01\x12\0\x03'),
    'text that is not compressed': with_chunk(b'zTXt', b'note\0\0not compressed'),
    'checksum of a text': with_chunk(b'tEXt', b'Software\0none', crc=1),
    'checksum of the resolution': with_chunk(b'pHYs', bytes(9), crc=1),
    'short resolution': with_chunk(b'pHYs', bytes(3)),
    'text of 100 MB': with_chunk(b'zTXt', b'note\0\0' + zlib.compress(bytes(10**8))),
    'colour profile of nonsense': with_chunk(b'iCCP', b'name\0\0nonsense'),
    'short gamma': with_chunk(b'gAMA', b'\0'),
}


@pytest.mark.parametrize('name', odd_png)
def test_a_png_is_its_pixels(name, tmp_path):
    (tmp_path/'a.png').write_bytes(odd_png[name])
    assert check_image(tmp_path/'a.png')['error'] is None
    assert (np.asarray(StudyImage.create(tmp_path/'a.png')) == array).all()


@pytest.mark.parametrize('marker, payload', [
    (b'\xff\xe2', b'MPF\0nonsense'), (b'\xff\xe2', b'ICC_PROFILE\0\x02\x01nonsense'), (b'\xff\xed', b'Photoshop 3.0\x008BIM\x04\x04'),
    (b'\xff\xe1', b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="six"'), (b'\xff\xe2', b'MPF\0II*\0\xff\xff\xff\xff'),
    (b'\xff\xe2', b'MPF\0' + tiff((0xb002, 7, 4, b'abcd'))), (b'\xff\xfe', b'\xff\xd9\xff\xd8')])
def test_a_jpeg_is_its_pixels(marker, payload, tmp_path):
    (tmp_path/'a.jpg').write_bytes(with_segment(payload, marker))
    assert check_image(tmp_path/'a.jpg')['error'] is None
    assert (np.asarray(StudyImage.create(tmp_path/'a.jpg')) == np.asarray(Image.open(io.BytesIO(saved('jpeg', quality=95))))).all()


@pytest.mark.parametrize('ext', ['png', 'jpeg', 'webp', 'tiff'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_as_pillow_turns_it(ext, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path/f'a.{ext}').write_bytes(data := saved(ext, exif=exif))
    assert (np.asarray(StudyImage.create(tmp_path/f'a.{ext}')) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()


@pytest.mark.parametrize('ext', ['png', 'jpeg', 'tiff', 'webp', 'gif', 'bmp'])
def test_damage_to_the_pixels_stays_damage(ext, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    noise.save(tmp_path/f'a.{ext}')
    data = (tmp_path/f'a.{ext}').read_bytes()
    (tmp_path/f'a.{ext}').write_bytes(data[:len(data)//2])
    assert check_image(tmp_path/f'a.{ext}')['error'] not in (None, no_image)


def test_a_telephone_s_heic(tmp_path):
    "Whatever its name is; upright, as the camera says it should be shown."
    pytest.importorskip('pillow_heif', reason="pip install 'imgstudy[heic]'")
    for name in ('IMG_1.HEIC', 'IMG_2.jpg', 'IMG_3'):
        (tmp_path/name).write_bytes((Path(__file__).parent/'lying.heic').read_bytes())
        got = np.asarray(StudyImage.create(tmp_path/name)).astype(int)
        assert got.shape == turned.shape and np.abs(got - turned).mean() < 4, name
        assert check_image(tmp_path/name)['error'] is None


def test_heic_without_the_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    monkeypatch.setattr(Image, 'OPEN', {k: v for k, v in Image.OPEN.items() if k != 'HEIF'}) # another test may have added it
    (tmp_path/'a.heic').write_bytes((Path(__file__).parent/'lying.heic').read_bytes())
    with pytest.raises(StudyError, match=r"pip install 'imgstudy\[heic\]'"): open_upright(tmp_path/'a.heic')
    assert check_image(tmp_path/'a.heic')['error'] == "HEIC needs the package pillow-heif: pip install 'imgstudy[heic]'"


def test_avif_with_pillow_and_without(tmp_path, monkeypatch):
    if 'AVIF' in Image.registered_extensions().values():
        (tmp_path/'a.avif').write_bytes(saved('avif', quality=95))
        assert np.abs(np.asarray(StudyImage.create(tmp_path/'a.avif')).astype(int) - array).mean() < 3
    (tmp_path/'b.jpg').write_bytes(struct.pack('>I', 24) + b'ftypavif' + bytes(4) + b'mif1avif' + bytes(100))
    monkeypatch.setattr(Image, 'OPEN', {k: v for k, v in Image.OPEN.items() if k != 'AVIF'})
    assert check_image(tmp_path/'b.jpg')['error'] == 'AVIF needs Pillow 11.3 or newer: pip install -U pillow'


others = {'notes.txt': b'cats are nice', 'labels.csv': b'file,label\n', 'BMW': b'BMW, blue', 'film.mp4': struct.pack('>I', 24) + b'ftypisom' + bytes(4) +
          b'isommp42', 'film.mpg': b'\0\0\1\xba' + bytes(50), 'table.h5': b'\x89HDF\r\n\x1a\n' + bytes(50), 'page.pdf': b'%PDF-1.7', 'empty': b'',
          'photo.xmp': b'<x:xmpmeta>', 'photo.NEF': None, 'photo.json': b'{}', 'run.py': b'import os', 'film.avi': b'RIFF1234AVI LIST'}


def folder(root, n=30):
    "Two classes of `n` photographs each."
    rng = np.random.default_rng(0)
    for c in 'ab':
        (root/c).mkdir(parents=True)
        for i in range(n): Image.fromarray(rng.integers(0, 255, (12, 9, 3), np.uint8)).save(root/c/f'{i}.jpg')
    return root


def test_what_is_no_image_is_named_and_never_fatal(tmp_path, capsys):
    root = folder(tmp_path/'photos')
    for name, data in others.items(): (root/'a'/name).write_bytes(saved('tiff') if data is None else data)
    data = load_data(make_run(dataset=f'folder:{root}', model='lenet5'))
    assert len(data.items) == 60 and {s['path']: s['error'] for s in data.skipped} == {f'a/{n}': no_image + ': PDF'*(n == 'page.pdf') for n in others}
    said = capsys.readouterr().out
    assert f'{len(others)} files are no images: ' in said and all(f'a/{n}' in said for n in others)
    load_data(make_run(dataset=f'folder:{root}', model='lenet5'))
    assert 'no image' not in capsys.readouterr().out # said once


def test_one_note_among_sixty_photographs(tmp_path, capsys):
    root = folder(tmp_path/'photos')
    (root/'b/notes.txt').write_text('not a photograph')
    assert len(load_data(make_run(dataset=f'folder:{root}', model='lenet5')).items) == 60
    assert '1 file is no image: b/notes.txt.' in capsys.readouterr().out


@pytest.mark.parametrize('n_bad, max_bad, fine', [(2, None, True), (3, None, False), (3, 3, True), (4, 3, False), (6, 0.1, True), (9, 0.1, False),
                                                  (1, 0, False)])
def test_damaged_images_are_all_named(n_bad, max_bad, fine, tmp_path, capsys):
    root = folder(tmp_path/'photos')
    names = [f'a/{i}.jpg' for i in range(n_bad)]
    for name in names: (root/name).write_bytes(saved('jpeg')[:-300])
    run = make_run(dataset=f'folder:{root}', model='lenet5', max_bad=max_bad)
    if fine:
        data = load_data(run)
        assert [s['path'] for s in data.skipped] == names and len(data.items) == 60 - n_bad
        said = capsys.readouterr().out
    else:
        with pytest.raises(StudyError, match=f'max_bad={n_bad}') as e: load_data(run)
        said = str(e.value)
    assert all(name in said for name in names)


def heic(name): return (Path(__file__).parent/'lying.heic').read_bytes() if name.lower().endswith('heic') else struct.pack('>I', 24) + b'ftypavif' + bytes(4) + b'mif1avif' + bytes(100)


@pytest.mark.parametrize('names, n_torn, says, damaged', [
    (['a/IMG_1.HEIC'], 0, '1 image cannot be read here and is left out: a/IMG_1.HEIC. HEIC needs the package pillow-heif: ', ''),
    (['a/x.heic', 'b/y.HEIC'], 0, '2 images cannot be read here and are left out: a/x.heic, b/y.HEIC. HEIC needs', ''),
    (['b/x.heic'], 1, '1 image cannot be read here and is left out: b/x.heic. HEIC needs', '1 image is damaged and left out: a/0.jpg'),
    (['b/x.avif'], 0, '1 image cannot be read here and is left out: b/x.avif. AVIF needs Pillow 11.3 or newer', '')])
def test_what_lacks_a_package_is_not_called_damaged(names, n_torn, says, damaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    monkeypatch.setattr(Image, 'OPEN', {k: v for k, v in Image.OPEN.items() if k not in ('HEIF', 'AVIF')})
    root = folder(tmp_path/'photos')
    for name in names: (root/name).write_bytes(heic(name))
    for i in range(n_torn): (root/f'a/{i}.jpg').write_bytes(saved('jpeg')[:-300])
    load_data(make_run(dataset=f'folder:{root}', model='lenet5'))
    said = capsys.readouterr().out
    assert says in said and (damaged in said if damaged else 'damaged' not in said)
    with pytest.raises(StudyError, match='install what some need' if n_torn else 'Install what they need, or leave'):
        load_data(make_run(dataset=f'folder:{root}', model='lenet5', max_bad=0))


@pytest.mark.parametrize('name, data, says', [('IMG_1.HEIC', b'words', 'a/IMG_1.HEIC (text)'), ('a.jpg', b'', 'a/a.jpg (an empty file)'), ('b.png', b'PK\3\4' + bytes(9), 'a/b.png (a ZIP archive)'),
                                              ('c.jpg', b'<!DOCTYPE html><html>', 'a/c.jpg (HTML)'), ('notes.txt', b'words', 'a/notes.txt')])
@pytest.mark.parametrize('more', [0, 1])
def test_predict_names_what_is_no_image_as_train_does(name, data, says, more, tmp_path, capsys):
    from imgstudy.apply import _notes, image_files
    root = folder(tmp_path/'photos')
    (root/'a'/name).write_bytes(data)
    if more: (root/'b/film.avi').write_bytes(b'RIFF1234AVI LIST')
    _notes(image_files([str(root)])[1], [], [str(root)])
    said = capsys.readouterr().err
    assert said == (f'2 files are no image: {says}, b/film.avi\n' if more else f'1 file is no image: {says}\n'), said
    load_data(make_run(dataset=f'folder:{root}', model='lenet5'))
    assert says in capsys.readouterr().out


def test_endings_and_contents():
    assert all(is_image(saved(ext)[:64]) for ext in ('png', 'jpeg', 'gif', 'tiff', 'webp'))
    assert all(is_image(b'', e) for e in ('.jpg', '.JPEG', '.HEIC', '.Tif', '.bmp', '.avif'))
    assert not any(is_image(b'II*\0' if data is None else data, Path(name).suffix) for name, data in others.items())


called_jpg = {'page': b'<html><body>404', 'Page': b'\n<!DOCTYPE HTML>', 'Loud': b'<HTML>', 'empty': b'',
              'zip': b'PK\3\4' + bytes(90), 'gz': b'\x1f\x8b\x08' + bytes(90), '7z': b'7z\xbc\xaf\x27\x1c' + bytes(90), 'tar': b'a.jpg'.ljust(257, b'\0') + b'ustar\x0000' + bytes(300),
              'lfs': b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n', 'film': struct.pack('>I', 24) + b'ftypmp42' + bytes(100),
              'mac': b'\0\5\x16\7' + bytes(90), 'note': b'a note\n', 'table': b'file,label\n' + b'a.jpg,cat\n'*90, 'note_utf8': ('ü'*400).encode(), 'json': b'{"a": 1}'}


@pytest.mark.parametrize('ending', ['.jpg', '.PNG', '.tiff', '.webp'])
def test_what_is_called_like_an_image_and_is_none(ending, tmp_path, capsys):
    "All of them are named by what they are; none counts as damaged."
    root = folder(tmp_path/'photos')
    for name, data in called_jpg.items(): (root/'a'/f'{name}{ending}').write_bytes(data)
    data = load_data(make_run(dataset=f'folder:{root}', model='lenet5', max_bad=0))
    said = capsys.readouterr().out
    assert len(data.items) == 60 and f'{len(called_jpg)} files are no images: ' in said and 'damaged' not in said
    for words in (f'page{ending} (HTML)', f'Loud{ending} (HTML)', f'empty{ending} (an empty file)', f'zip{ending} (a ZIP archive)', 'git lfs pull', f'note{ending} (text)', f'table{ending} (text)', f'note_utf8{ending} (text)', f'json{ending} (text)'):
        assert words in said, words
    from imgstudy.apply import image_files
    images, others = image_files([root])
    assert len(images) == 60 and len(others) == len(called_jpg)
    with pytest.raises(StudyError, match='This is no image, whatever its name, but a ZIP'): open_upright(root/f'a/zip{ending}')


@pytest.mark.parametrize('data', [bytes(1000), b'\xff\xd8\xff\xe0' + bytes(60), b'\x89PNG\r\n\x1a\n', np.random.default_rng(1).integers(128, 255, 900, np.uint8).tobytes()])
def test_a_damaged_image_is_still_one(data, tmp_path):
    (tmp_path/'a.jpg').write_bytes(data)
    assert 'no image' not in check_image(tmp_path/'a.jpg')['error']


@pytest.mark.parametrize('ending, data', [('ppm', b'P3\n2 1 255\n1 2 3 4 5 6\n'), ('pgm', b'P2 2 1 255 1 2'), ('pbm', b'P1\n2 1\n0 1\n'), ('xbm', None)])
def test_images_written_in_letters_are_images(ending, data, tmp_path):
    if data is None: Image.new('1', (9, 9)).save(buf := io.BytesIO(), ending); data = buf.getvalue()
    (tmp_path/f'a.{ending}').write_bytes(data)
    assert check_image(tmp_path/f'a.{ending}')['error'] is None
    (tmp_path/'cut.jpg').write_bytes(data[:9])
    assert 'text' not in check_image(tmp_path/'cut.jpg')['error']


def test_checks_of_before_deep_colours_are_not_used(tmp_path, monkeypatch):
    "An older version read colours of 16 bits as 8, and its checks say so."
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    (tmp_path/'x').mkdir()
    Image.new('RGB', (4, 4)).save(tmp_path/'x/a.png')
    key = listing_key(tmp_path/'x', ['a.png'])
    (tmp_path/'cache/checks').mkdir(parents=True)
    (tmp_path/f'cache/checks/{key}.csv').write_text('path,digest,width,height,mode,r,g,b,r2,g2,b2,error\na.png,0,9,9,RGB,0,0,0,0,0,0,\n')
    assert check_images(tmp_path/'x', ['a.png']).width[0] == 4
