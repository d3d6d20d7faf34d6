"""The operators of a file that LiteRT's execution plan does not give to XNNPACK."""


def undelegated(content, num_threads=1):
    """Returns the operators that no delegate takes.

    An interpreter lists all operators of the file, and then one DELEGATE for each partition.
    The operators of a partition are those between its outputs and its inputs.

    Args:
        content: The file.
        num_threads: The number of threads of the interpreter.

    Returns:
        The name of each operator's first output, with the operator's name, in the file's order; and
        the number of partitions.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    interpreter.allocate_tensors()
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    nodes = interpreter._get_ops_details()
    partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    makers = {int(out): node for node in operators for out in node["outputs"]}
    taken = set()
    for partition in partitions:
        inputs, left = {int(i) for i in partition["inputs"]}, list(map(int, partition["outputs"]))
        while left:
            maker = makers.get(left.pop())
            if maker is None or maker["index"] in taken:
                continue
            taken.add(maker["index"])
            left += [int(i) for i in maker["inputs"] if int(i) not in inputs]
    return [
        (names[int(node["outputs"][0])], node["op_name"])
        for node in operators
        if node["index"] not in taken
    ], len(partitions)
