"""mocograd in gdb: shapes, tensors, variables and nodes as people read them.

  gdb -x tools/gdb/mocograd.py --args build-debug/moco ...        or, within gdb: source tools/gdb/mocograd.py

  print x                       Shape, Tensor, Variable, Node
  mocotensor EXPR [SLICE]       the numbers of a tensor or variable: mocotensor x [0, :, 3:5, -1]
  mocowhere                     the module and the operation that the selected thread is in

Everything is read from memory, nothing is called in the program: a core file will do. The types come
from the debug information of `make debug`. Statistics are of the first million numbers.
"""

import array
import itertools
import math
import re

import gdb
import gdb.printing

FIRST = 8  # numbers of a tensor that print shows
MOST = 1000  # numbers that mocotensor shows
COUNTED = 1 << 20  # numbers that statistics are taken of

TYPE_CODES = {"f32": "f", "f64": "d", "bf16": "H", "i64": "q", "u8": "B"}


# ---- parts of the standard library ---------------------------------------------------------------

def text_of(string):
    """std::string"""
    length = int(string["_M_string_length"])
    return string["_M_dataplus"]["_M_p"].string(length=length) if length else ""


def elements(vector):
    """std::vector"""
    start, finish = vector["_M_impl"]["_M_start"], vector["_M_impl"]["_M_finish"]
    return [start[i] for i in range(int(finish - start))]


def pointee(shared_ptr):
    """std::shared_ptr, None where it is null"""
    pointer = shared_ptr["_M_ptr"]
    return pointer.dereference() if int(pointer) else None


def enumerator(value):
    """mocograd::DType::f32 -> f32"""
    return str(value).rpartition("::")[2]


# ---- what the engine's types hold ----------------------------------------------------------------

def dims_of(shape):
    return [int(shape["dims_"][i]) for i in range(int(shape["ndim_"]))]


def shape_text(shape):
    return "[" + ", ".join(map(str, dims_of(shape))) + "]"


def is_defined(tensor):
    return int(tensor["data_"]) != 0


def numbers_of(tensor, most):
    """The first numbers, at most so many; raises gdb.MemoryError where they cannot be read."""
    device = enumerator(tensor["device_"])
    if device == "cuda":
        raise gdb.MemoryError("they are in the memory of the GPU")
    dtype = enumerator(tensor["dtype_"])
    numbers = array.array(TYPE_CODES[dtype])
    count = min(math.prod(dims_of(tensor["shape_"])), most)
    if count:
        memory = gdb.selected_inferior().read_memory(int(tensor["data_"]), count * numbers.itemsize)
        numbers.frombytes(bytes(memory))
    if dtype == "bf16":  # the upper halves of floats
        numbers = array.array("f", array.array("I", (x << 16 for x in numbers)).tobytes())
    return numbers


def number_text(x):
    return str(x) if isinstance(x, int) else f"{x:.6g}"


def statistics_text(numbers):
    finite = [x for x in numbers if math.isfinite(x)]
    parts = []
    if finite:
        mean = math.fsum(finite) / len(finite)
        std = math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / len(finite))
        parts.append(f"min {min(finite):.4g} max {max(finite):.4g} mean {mean:.4g} std {std:.4g}")
    nan = sum(math.isnan(x) for x in numbers)
    infinite = len(numbers) - len(finite) - nan
    if nan:
        parts.append(f"{nan} NaN")
    if infinite:
        parts.append(f"{infinite} Inf")
    return ", ".join(parts)


def brief_text(tensor):
    if not is_defined(tensor):
        return "undefined"
    return f"{enumerator(tensor['dtype_'])} {shape_text(tensor['shape_'])}"


def tensor_text(tensor):
    if not is_defined(tensor):
        return "undefined"
    head = f"{brief_text(tensor)} {enumerator(tensor['device_'])}"
    try:
        numbers = numbers_of(tensor, COUNTED)
    except gdb.MemoryError as error:
        return f"{head}, numbers not readable: {error}"
    first = ", ".join(map(number_text, numbers[:FIRST]))
    more = ", ..." if math.prod(dims_of(tensor["shape_"])) > FIRST else ""
    statistics = statistics_text(numbers)
    return f"{head}{' ' + statistics if statistics else ''}: {first}{more}"


def source_text(where):
    place = where["_M_impl"]
    if not int(place):
        return ""
    return f"{place['_M_file_name'].string()}:{int(place['_M_line'])}"


def node_text(node):
    module = text_of(node["module"])
    source = source_text(node["where"])
    grad = "gradient arrived" if is_defined(node["grad"]) else "no gradient"
    used = not int(node["backward"]["_M_manager"]) and elements(node["inputs"])
    return " ".join(filter(None, [
        node["op"].string(), shape_text(node["shape"]), f"in {module}" if module else "",
        f"({source})" if source else "", f"{grad}{', backward is done' if used else ''}"]))


def variable_text(variable):
    node = pointee(variable["node_"])
    if node is None:
        return f"{brief_text(variable['data_'])}, constant"
    return f"{brief_text(variable['data_'])}, requires_grad, {node_text(node)}"


# ---- printers ------------------------------------------------------------------------------------

class ShapePrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return shape_text(self.value)


class TensorPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return tensor_text(self.value)

    def children(self):
        if not is_defined(self.value):
            return
        yield "data", self.value["data_"]
        count = self.value["storage_"]["_M_refcount"]["_M_pi"]
        if int(count):
            # By its place, after the vptr and as an int: of a class gdb would look up the real type.
            words = count.cast(gdb.lookup_type("int").pointer())
            yield "shared_by", int((words + 2).dereference())


class VariablePrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return variable_text(self.value)

    def children(self):
        yield "data", self.value["data_"]
        node = pointee(self.value["node_"])
        if node is not None:
            yield "grad", node["grad"]
            yield "node", node.address


class NodePrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return node_text(self.value)

    def children(self):
        yield "grad", self.value["grad"]
        for i, shared in enumerate(elements(self.value["inputs"])):
            node = pointee(shared)
            yield f"input {i}", "constant" if node is None else node_text(node)
            if node is not None:
                yield f"input {i} node", node.address


def register_printers():
    printers = gdb.printing.RegexpCollectionPrettyPrinter("mocograd")
    for name, printer in (("Shape", ShapePrinter), ("Tensor", TensorPrinter),
                          ("Variable", VariablePrinter), ("Node", NodePrinter)):
        printers.add_printer(name, f"^mocograd::{name}$", printer)
    gdb.printing.register_pretty_printer(None, printers, replace=True)


# ---- commands ------------------------------------------------------------------------------------

def tensor_at(expression):
    try:
        value = gdb.parse_and_eval(expression)
    except gdb.error as error:
        raise gdb.GdbError(f"mocotensor: {error}")
    if value.type.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        value = value.referenced_value()
    if value.type.code == gdb.TYPE_CODE_PTR:
        value = value.dereference()
    name = str(value.type.strip_typedefs().unqualified())
    if name == "mocograd::Variable":
        return value["data_"]
    if name != "mocograd::Tensor":
        raise gdb.GdbError(f"mocotensor: {expression} is {name}, neither a tensor nor a variable")
    return value


def slice_indices(text, dims):
    """Of each dimension the indices that '[0, :, 3:5, -1]' takes, and whether it stays."""
    entries = [entry.strip() for entry in text.strip()[1:-1].split(",")] if text else []
    if len(entries) > len(dims):
        raise gdb.GdbError(f"mocotensor: {text} has {len(entries)} entries for {dims}")
    taken = []
    for dim, entry in itertools.zip_longest(dims, entries, fillvalue=":"):
        if re.fullmatch(r"[+-]?\d+", entry):
            index = int(entry)
            if not -dim <= index < dim:
                raise gdb.GdbError(f"mocotensor: {index} is outside of a dimension of {dim}")
            taken.append(([index % dim], False))
        elif re.fullmatch(r"([+-]?\d*:){1,2}[+-]?\d*", entry):
            bounds = [int(part) if part else None for part in entry.split(":")]
            if bounds[2:] == [0]:
                raise gdb.GdbError(f"mocotensor: {entry}: a step of 0")
            taken.append((list(range(dim))[slice(*bounds)], True))
        else:
            raise gdb.GdbError(f"mocotensor: '{entry}' is neither an integer nor begin:end:step")
    return taken


def nested_text(numbers, dims, taken, offset=0, indent=1):
    if not taken:
        return number_text(numbers[offset])
    (indices, stays), stride = taken[0], math.prod(dims[1:])
    parts = [nested_text(numbers, dims[1:], taken[1:], offset + i * stride,
                         indent + stays)
             for i in indices]
    if not stays:
        return parts[0]
    separator = ",\n" + " " * indent if any(s for _, s in taken[1:]) else ", "
    return "[" + separator.join(parts) + "]"


class MocoTensor(gdb.Command):
    """mocotensor EXPR [SLICE]: the numbers of a tensor or variable.
A slice is set off by a space and written as in NumPy: mocotensor x [0, :, 3:5, -1]"""

    def __init__(self):
        super().__init__("mocotensor", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        match = re.fullmatch(r"(.+?)(?:\s+(\[[^\[\]]*\]))?", argument.strip())
        if not match:
            raise gdb.GdbError("mocotensor: needs an expression")
        tensor = tensor_at(match[1])
        if not is_defined(tensor):
            raise gdb.GdbError(f"mocotensor: {match[1]} is undefined")
        dims = dims_of(tensor["shape_"])
        taken = slice_indices(match[2], dims)
        count = math.prod(len(indices) for indices, _ in taken)
        if count > MOST:
            raise gdb.GdbError(f"mocotensor: {count} numbers of {brief_text(tensor)}, at most "
                               f"{MOST} are shown; take a slice: mocotensor {match[1]} [0]")
        # Only as far as the slice reaches.
        last = 0
        for dim, (indices, _) in zip(dims, taken):
            last = last * dim + max(indices, default=0)
        try:
            numbers = numbers_of(tensor, last + 1)
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"mocotensor: {match[1]}: numbers not readable: {error}")
        print(f"{match[1]} {brief_text(tensor)}{' ' + match[2] if match[2] else ''}")
        print(nested_text(numbers, dims, taken))


def frames():
    frame = gdb.newest_frame()
    while frame is not None:
        yield frame
        frame = frame.older()


def module_path():
    """The path of the module that runs, and where it was read."""
    try:
        return text_of(gdb.parse_and_eval("'mocograd::(anonymous namespace)::module_path'")), ""
    except gdb.error as error:  # a core file without the threads' storage, or no debug information
        reason = str(error).strip().splitlines()[0].rstrip(":.")
    # Where a ModuleScope stands, newest first; a backward runs in the whole path of its node.
    names = []
    for frame in frames():
        try:
            if frame.name() == "mocograd::Variable::backward":
                names.insert(0, text_of(frame.read_var("node")["module"]))
                break
            if str(frame.read_var("scope").type.unqualified()) == "mocograd::ModuleScope":
                names.insert(0, text_of(frame.read_var("this")["name_"]))
        except (ValueError, gdb.error):
            pass  # a frame without such variables
    return ".".join(names), f"  (from the frames: {reason})"


def describe(name, frame):
    place = frame.find_sal()
    return f"{name}  {place.symtab.filename}:{place.line}" if place.symtab else name


def in_operations(frame):
    place = frame.find_sal()
    return place.symtab is not None and "/autograd/ops/" in place.symtab.fullname()


class MocoWhere(gdb.Command):
    """mocowhere: the module, the operation and the kernel that the selected thread is in."""

    def __init__(self):
        super().__init__("mocowhere", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        path, note = module_path()
        kernel = operation = None
        backward = ""
        for frame in frames():
            name = frame.name() or ""
            if re.search(r"::C(pu|uda)Backend::(?!record|beside)", name):
                kernel = frame
            if name == "mocograd::Variable::backward":
                try:
                    backward = "backward of " + frame.read_var("node")["op"].string()
                except (ValueError, gdb.error):
                    backward = "a backward"  # without debug information of its variables
                break
            if in_operations(frame):
                operation = frame  # the outermost: the operation, not what it is made of
        print(f"module     {path or '-'}{note}")
        print("operation  " + (describe(backward or operation.name().rpartition("::")[2], operation)
                               if operation else "-"))
        print("kernel     " + (describe(kernel.name().rpartition("::")[2], kernel)
                               if kernel else "-"))


register_printers()
MocoTensor()
MocoWhere()
