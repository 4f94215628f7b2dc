in vec2 pixel;
uniform vec2 size;
void main() { gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0, 1); }
