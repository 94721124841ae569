"""A small MCP server without the SDK, over stdio or HTTP, for its tests.

python mcp_server.py        speaks over stdin and stdout
python mcp_server.py http   prints its port and answers POST requests
"""

from http import server
import json
import os
import sys
import time

_NUMBER = {'type': 'number'}
TOOLS = [
  {
    'name': 'add',
    'description': 'Adds\n  two numbers.',
    'inputSchema': {
      'type': 'object',
      'properties': {'a': _NUMBER, 'b': _NUMBER},
      'required': ['a', 'b'],
    },
  },
  *(
    {'name': name, 'inputSchema': {'type': 'object', 'properties': {}}}
    for name in ('count', 'die', 'stall', 'picture', 'refuse')
  ),
]
_counted = 0


def call(name, arguments):
  """The content of an answer, and whether it is an error."""
  global _counted
  if name == 'die':
    os._exit(3)
  if name == 'stall':
    time.sleep(60)
  if name == 'add' and not {'a', 'b'} <= arguments.keys():
    return [{'type': 'text', 'text': 'a and b are required'}], True
  if name == 'add':
    return [
      {'type': 'text', 'text': str(arguments['a'] + arguments['b'])}
    ], False
  if name == 'picture':
    image = {'type': 'image', 'data': 'AAAA', 'mimeType': 'image/png'}
    return [image, {'type': 'text', 'text': 'seen'}], False
  _counted += 1
  return [{'type': 'text', 'text': str(_counted)}], False


def answer(asked):
  """The answer to a message; None if it wants none."""
  method, params = asked['method'], asked.get('params', {})
  made = {'jsonrpc': '2.0', 'id': asked.get('id')}
  if 'id' not in asked:
    return None
  if method == 'initialize':
    result = {
      'protocolVersion': params['protocolVersion'],
      'capabilities': {'tools': {}},
      'serverInfo': {'name': 'small', 'version': '1'},
    }
  elif method == 'tools/list':
    # Two pages.
    first = 'cursor' not in params
    result = {'tools': TOOLS[:2] if first else TOOLS[2:]}
    result |= {'nextCursor': 'more'} if first else {}
  elif method == 'tools/call' and params['name'] != 'refuse':
    content, wrong = call(params['name'], params.get('arguments', {}))
    result = {'content': content, 'isError': wrong}
  else:
    return made | {'error': {'code': -32601, 'message': 'not found'}}
  return made | {'result': result}


class Handler(server.BaseHTTPRequestHandler):
  """Streamable HTTP without streams."""

  def do_POST(self):
    size = int(self.headers['Content-Length'])
    made = answer(json.loads(self.rfile.read(size)))
    data = json.dumps(made).encode() if made else b''
    self.send_response(200 if made else 202)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def do_GET(self):
    self.send_error(405)

  def log_message(self, *arguments):
    del arguments


def main():
  if sys.argv[1:] == ['http']:
    served = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    print(served.server_port, flush=True)
    served.serve_forever()
  if sys.argv[1:] == ['broken']:
    sys.exit('nothing is configured')
  for line in sys.stdin:
    made = answer(json.loads(line))
    if made:
      print(json.dumps(made), flush=True)


if __name__ == '__main__':
  main()
