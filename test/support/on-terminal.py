# Runs a command on a pseudo-terminal of the given columns and prints its last bytes, then its exit code.
import fcntl, os, pty, struct, sys, termios

columns = int(sys.argv[1])
reader, writer = pty.openpty()
fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
child = os.fork()
if child == 0:
    os.setsid()
    for stream in (0, 1, 2):
        os.dup2(writer, stream)
    os.execvp(sys.argv[2], sys.argv[2:])
os.close(writer)
output = b""
while True:
    try:
        piece = os.read(reader, 65536)
    except OSError:
        break
    if not piece:
        break
    output += piece
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(output[-200000:])
print("\nexit", os.waitstatus_to_exitcode(status), "bytes", len(output))
