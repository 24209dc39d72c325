#!/bin/sh
# moco data info and moco data fetch, as a user calls them. Ends with 'N passed, M failed'.
#
#   BUILD=build tests/data_command_test.sh
#
# `expect NAME CODE PATTERN COMMAND…`: COMMAND must exit with CODE and write a line with PATTERN. What
# fetch leaves behind is checked by `holds NAME FOLDER FILE…` and `absent NAME PATH`.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
moco=$BUILD/moco
passed=0 failed=0
scratch=$(mktemp -d) || exit 1
server=
finish() {
  [ -z "$server" ] || kill "$server"
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

pass() { passed=$((passed + 1)); }
fail() {
  failed=$((failed + 1))
  echo "failed: $1"
  sed 's/^/  /' "$scratch/output"
}

expect() {
  name=$1 wanted=$2 pattern=$3
  shift 3
  code=0
  "$@" >"$scratch/output" 2>&1 </dev/null || code=$?
  if [ "$code" -ne "$wanted" ]; then
    fail "$name: exit code $code, expected $wanted"
  elif ! grep -q -e "$pattern" "$scratch/output"; then
    fail "$name: no line with '$pattern'"
  elif [ "$code" -ne 0 ] && [ "$(grep -c '^error: ' "$scratch/output")" -ne 1 ]; then
    fail "$name: not one line of error"
  else
    pass
  fi
}

# holds NAME FOLDER FILE…: these files, and nothing else, hidden ones included
holds() {
  name=$1 folder=$2
  shift 2
  printf '%s\n' "$@" >"$scratch/wanted"
  ls -A "$folder" >"$scratch/output" 2>&1
  if cmp -s "$scratch/wanted" "$scratch/output"; then pass; else fail "$name"; fi
}

absent() {
  ls -lA "$2" >"$scratch/output" 2>&1
  if [ -e "$2" ]; then fail "$1: $2 is there"; else pass; fi
}

# ---- info ------------------------------------------------------------------------------------------

# A CIFAR-10 of three black images of class 0 and one of class 1, under a name that is no text.
folder=$scratch/cifar-10-batches-bin
mkdir "$folder"
{ head -c 9219 /dev/zero && printf '\001' && head -c 3072 /dev/zero; } >"$folder/data_batch_1.bin"
printf 'cat\nred\033[31mdog\n' >"$folder/batches.meta.txt"
spec=cifar10:$folder

expect 'info counts images' 0 '^train  *4  32x32$' "$moco" data info "$spec"
expect 'info counts classes' 0 '^cat  *3  *0$' "$moco" data info "$spec"
expect 'info shows control characters of a file as text' 0 '^red.x1b\[31mdog  *1  *0$' \
  "$moco" data info "$spec"
expect 'info measures' 0 '^mean   0.0000  0.0000  0.0000  of the training images$' \
  "$moco" data info "$spec"
expect 'info tells what is used' 0 '0.4914  0.4822  0.4465  used to normalise$' \
  "$moco" data info "$spec"

escape=$(printf '\033')
if "$moco" data info "$spec" | grep -q "$escape"; then fail 'info draws into a pipe'; else pass; fi
mkdir -p "$scratch/plain"
cp tests/fixtures/images/*.png "$scratch/plain/"
expect 'info of images without labels' 0 '^no labels$' "$moco" data info "folder:$scratch/plain" --show
expect 'info --show draws in any case' 0 "${escape}\[38;2;0;0;0;48;2;0;0;0m▀" \
  "$moco" data info "$spec" --show
expect 'info --png says where' 0 'sheet.png: ' "$moco" data info "$spec" --png "$scratch/sheet.png"
if head -c 8 "$scratch/sheet.png" | od -An -tx1 | grep -q '89 50 4e 47 0d 0a 1a 0a'; then
  pass
else
  fail 'info --png writes a PNG'
fi
expect 'info --png to a full disk' 1 '/dev/full: .*No space left' \
  "$moco" data info "$spec" --png /dev/full
expect 'info on what is not there' 1 'is not a directory' "$moco" data info "cifar10:$folder-not"
expect 'info on a kind that is unknown' 2 'there is no such data set' "$moco" data info "tar:$folder"
expect 'info without SPEC' 2 'SPEC' "$moco" data info
expect 'info with a size of zero' 2 'image-size' "$moco" data info shapes --image-size 0
expect 'info with an unknown recipe' 2 'augment' "$moco" data info shapes --augment strong

# ---- pack ------------------------------------------------------------------------------------------

mkdir -p "$scratch/classes/a"
cp tests/fixtures/images/rgb.png "$scratch/classes/a/"
pack() { "$moco" data pack "$@"; }
packed=$scratch/deep/packed
expect 'pack' 0 '^1 training and 0 test images of 1 classes' pack "folder:$scratch/classes" --out "$packed"
holds 'pack leaves the files alone' "$packed" batches.meta.txt data_batch_1.bin
expect 'pack into a folder with files' 1 'holds files already' pack "folder:$scratch/classes" --out "$packed"
holds 'which stay as they are, too' "$packed" batches.meta.txt data_batch_1.bin
rm -rf "$scratch/deep"
expect 'pack without labels' 1 'have no labels' pack "folder:$scratch/plain" --out "$packed"
absent 'an error of pack leaves nothing' "$scratch/deep"
# Ten classes of 60 pictures that take some milliseconds each.
mkdir -p "$scratch/many/0"
"$moco" data info shapes --image-size 64 --png "$scratch/many/0/0.png" >/dev/null
for i in $(seq 59); do ln "$scratch/many/0/0.png" "$scratch/many/0/$i.png"; done
for class in 1 2 3 4 5 6 7 8 9; do cp -rl "$scratch/many/0" "$scratch/many/$class"; done
"$moco" data pack "folder:$scratch/many" --out "$packed" >"$scratch/output" 2>&1 &
job=$!
until [ -e "$packed" ] || ! kill -0 "$job" 2>/dev/null; do :; done
kill -s INT "$job"
code=0
wait "$job" || code=$?
if [ "$code" -eq 130 ]; then pass; else fail "SIGINT ends pack: exit code $code"; fi
absent 'a stopped pack leaves nothing' "$scratch/deep"

# ---- fetch: files ----------------------------------------------------------------------------------

archive=$scratch/data.tar.gz
tar -czf "$archive" -C "$scratch" cifar-10-batches-bin
md5=$(md5sum <"$archive" | cut -c1-32)
sha256=$(sha256sum <"$archive" | cut -c1-64)
out=$scratch/new/out
fetch() { "$moco" data fetch "$@"; }

expect 'fetch unpacks' 0 "use them as --data cifar10:$out" \
  fetch cifar10 --out "$out" --url "file://$archive" --checksum "$md5"
holds 'fetch leaves the files alone' "$out" batches.meta.txt data_batch_1.bin
expect 'what was fetched can be used' 0 '^train  *4' "$moco" data info "cifar10:$out"
if cmp -s "$out/data_batch_1.bin" "$folder/data_batch_1.bin"; then pass; else fail 'same bytes'; fi
if (umask 027 && fetch cifar10 --out "$scratch/mode/out" --url "file://$archive" --checksum "$md5") \
  >/dev/null && [ "$(stat -c %a "$scratch/mode/out/data_batch_1.bin")" = 640 ]; then
  pass
else
  fail 'modes follow the umask'
fi

expect 'fetch into a folder with files' 1 'holds files already' \
  fetch cifar10 --out "$out" --url "file://$archive" --checksum "$md5"
holds 'which stay as they are' "$out" batches.meta.txt data_batch_1.bin
rm -rf "$scratch/new"

mkdir "$scratch/empty"
expect 'fetch into an empty folder, by SHA-256 in capitals' 0 '^2 files' fetch cifar10 \
  --out "$scratch/empty" --url "file://$archive" --checksum "$(echo "$sha256" | tr a-f A-F)"
holds 'it is filled' "$scratch/empty" batches.meta.txt data_batch_1.bin

expect 'fetch with a wrong checksum' 1 "the checksum is $md5, expected c32a1d4ab5d03f1284b67883e8d87530" \
  fetch cifar10 --out "$out" --url "file://$archive"
absent 'a wrong checksum leaves nothing' "$scratch/new"

touch "$scratch/file"
expect 'fetch onto a file' 1 "file: is not a folder" \
  fetch cifar10 --out "$scratch/file" --url "file://$archive" --checksum "$md5"
expect 'fetch below a file' 1 "file" \
  fetch cifar10 --out "$scratch/file/out" --url "file://$archive" --checksum "$md5"
expect 'fetch what is not there' 1 "file://$scratch/none: " \
  fetch cifar10 --out "$out" --url "file://$scratch/none"
absent 'a missing file leaves nothing' "$scratch/new"

# The files of the MNIST family stay packed.
mkdir "$scratch/mirror"
sums=
for file in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
  case $file in
    *idx3) printf '\0\0\010\003\0\0\0\001\0\0\0\001\0\0\0\001\0' ;;
    *) printf '\0\0\010\001\0\0\0\001\0' ;;
  esac | gzip >"$scratch/mirror/$file-ubyte.gz"
  sums=$sums,$(md5sum <"$scratch/mirror/$file-ubyte.gz" | cut -c1-32)
done
expect 'fetch mnist' 0 "^4 files in .*--data idx:$out" \
  fetch mnist --out "$out" --url "file://$scratch/mirror" --checksum "${sums#,}"
expect 'which can be used' 0 '^test  *1  1x1' "$moco" data info "idx:$out"
rm -rf "$scratch/new"
expect 'fetch mnist with one checksum' 2 '1 for 4 files' \
  fetch mnist --out "$out" --url "file://$scratch/mirror" --checksum "$md5"

expect 'fetch an unknown name' 2 'NAME' fetch imagenet --out "$out"
expect 'fetch without --out' 2 'out' fetch cifar10
expect 'fetch from an odd address' 2 'must begin with https' fetch cifar10 --out "$out" --url ftp://x
expect 'fetch with half a checksum' 2 '32 (MD5) or 64 (SHA-256)' \
  fetch cifar10 --out "$out" --checksum abc
absent 'a wrong call makes nothing' "$scratch/new"

# ---- fetch: archives that are not what they should be ----------------------------------------------

# refused NAME PATTERN ARCHIVE
refused() {
  expect "$1" 1 "$2" fetch cifar10 --out "$out" --url "file://$3" \
    --checksum "$(md5sum <"$3" | cut -c1-32)"
  absent "$1: nothing is left" "$scratch/new"
}
bad=$scratch/bad.tar.gz
for prefix in ../ "$scratch/" a/b/ a/../../; do
  tar -czPf "$bad" --transform "s,^,${prefix}escaped-," -C "$folder" data_batch_1.bin
  refused "a path into $prefix" "escaped-data_batch_1.bin' is not a file in the archive's own" "$bad"
done
if find "$scratch" -name "escaped-*" | grep -q .; then
  fail 'a file escaped'
else
  pass
fi
ln -s /etc/passwd "$scratch/link"
tar -czf "$bad" -C "$scratch" link
refused 'a symbolic link' "'link' is not a regular file" "$bad"
ln "$scratch/file" "$scratch/hard"
tar -czf "$bad" -C "$scratch" file hard
refused 'a hard link' "'hard' is not a regular file" "$bad"
tar -czf "$bad" -C "$folder" data_batch_1.bin data_batch_1.bin --hard-dereference
refused 'a name twice' "holds 'data_batch_1.bin' twice" "$bad"
mkdir "$scratch/nothing"
tar -czf "$bad" -C "$scratch" nothing
refused 'folders only' 'holds no files' "$bad"
head -c 5000 /dev/zero | tr '\0' x >"$bad"
refused 'no archive' 'cannot be unpacked' "$bad"
: >"$bad"
refused 'an empty file' 'cifar-10-binary.tar.gz: ' "$bad"
head -c 100 "$archive" >"$bad"
refused 'half an archive' 'cannot be unpacked' "$bad"

# A disk that fills up, while unpacking and while downloading: the limit counts 512 bytes.
full() {
  name=$1
  shift
  (
    trap '' XFSZ
    ulimit -f 4
    "$moco" data fetch cifar10 --out "$out" "$@"
  )
}
expect 'no space to unpack' 1 'cannot be written: File too large' \
  full x --url "file://$archive" --checksum "$md5"
absent 'no space to unpack: nothing is left' "$scratch/new"
head -c 20000 /dev/urandom >"$scratch/noise"
expect 'no space to download' 1 'cannot be written: File too large' \
  full x --url "file://$scratch/noise"
absent 'no space to download: nothing is left' "$scratch/new"

# ---- fetch: http -----------------------------------------------------------------------------------

# data.tar.gz; moved, which points to it; dropped, which ends too early; slow, which never ends.
start_server() {
  python3 - "$scratch" <<'PYTHON' >"$scratch/port" 2>"$scratch/server.log" &
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data.tar.gz")
            self.end_headers()
            return
        if self.path not in ("/data.tar.gz", "/dropped", "/slow"):
            return self.send_error(404)
        content = open(sys.argv[1] + "/data.tar.gz", "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", len(content) + (self.path != "/data.tar.gz") * 10**6)
        self.end_headers()
        self.wfile.write(content)
        while self.path == "/slow":
            self.wfile.write(b".")
            time.sleep(0.05)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
  server=$!
  while [ ! -s "$scratch/port" ] && kill -0 "$server" 2>/dev/null; do sleep 0.1; done
  [ -s "$scratch/port" ]
}

# begin_slow_fetch: $job, in the middle of a download
begin_slow_fetch() {
  "$moco" data fetch cifar10 --out "$out" --url "$address/slow" >"$scratch/output" 2>&1 &
  job=$!
  tries=0
  until [ -n "$(find "$out" -type f -size +0 2>/dev/null)" ] || [ $tries -eq 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
}

# killed: kill -9 in the middle of a download leaves a hidden folder, which the next fetch removes
killed() {
  begin_slow_fetch
  expect 'one fetch at a time' 1 'another process is working in it' \
    fetch cifar10 --out "$out" --url "file://$archive" --checksum "$md5"
  kill -s KILL "$job"
  wait "$job" 2>/dev/null
  expect 'fetch after kill -9' 0 '^2 files' \
    fetch cifar10 --out "$out" --url "file://$archive" --checksum "$md5"
  holds 'nothing of the killed one is left' "$out" batches.meta.txt data_batch_1.bin
  rm -rf "$scratch/new"
}

# interrupted SIGNAL CODE: a signal in the middle of a download
interrupted() {
  begin_slow_fetch
  kill -s "$1" "$job"
  code=0
  wait "$job" || code=$?
  if [ "$code" -eq "$2" ]; then pass; else fail "SIG$1: exit code $code"; fi
  absent "SIG$1: nothing is left" "$scratch/new"
}

no_proxy=127.0.0.1
export no_proxy
if ! command -v python3 >/dev/null; then
  echo 'skipped: fetch over http: there is no python3 for a server'
elif ! start_server; then
  cp "$scratch/server.log" "$scratch/output"
  fail 'the server does not start'
else
  address=http://127.0.0.1:$(cat "$scratch/port")
  for page in data.tar.gz moved; do
    expect "http: $page" 0 '^2 files' \
      fetch cifar10 --out "$out" --url "$address/$page" --checksum "$sha256"
    holds "http: $page" "$out" batches.meta.txt data_batch_1.bin
    rm -rf "$scratch/new"
  done
  expect 'http: a page that is not there' 1 "$address/none: .*404" \
    fetch cifar10 --out "$out" --url "$address/none"
  absent 'http: a page that is not there' "$scratch/new"
  expect 'http: a connection that breaks' 1 'dropped: .*bytes remaining' \
    fetch cifar10 --out "$out" --url "$address/dropped" --checksum "$md5"
  absent 'http: a connection that breaks' "$scratch/new"
  interrupted INT 130
  interrupted TERM 143
  killed
fi
expect 'http: nobody listens' 1 '127.0.0.1' fetch cifar10 --out "$out" --url http://127.0.0.1:1/

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
